"""Figures of the data, the runs and the tables: each function takes a DataFrame and returns a matplotlib Figure.

The title says what the figure shows and is made from the data. A row has the same colour in every figure, from
seaborn's colour-blind-safe palette. Whiskers are 95% intervals, and two values are called a tie where their intervals
overlap. `save` writes a PNG of at most 200 kB, `shown` displays it with alternative text.
"""

import re
import textwrap
from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from llama4rec_core.backbones import task_of
from llama4rec_core.evaluation import ERRORS
from llama4rec_core.files import whole
from llama4rec_core.paper import paper_value
from llama4rec_core.tables import in_order
from llama4rec_core.variants import SECOND_OPINION

PALETTE = sns.color_palette("colorblind", 10)
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
COLOURS = {
    "Base": GREY, "IFT": ORANGE, "Llama4Rec": BLUE, "w/o DA": GREEN, "w/o PA": PURPLE, "w/o AA": BROWN,
    "random DA": PINK, "Base + popularity": YELLOW, "Base + item-kNN": RED, "Base + recent item-kNN": (0.9, 0.55, 0.5),
    "Base + EASE": SKY, "Base + biases": RED, "stack": (0.35, 0.35, 0.35), "stack + LLM": BLUE,
    "random": (0.82, 0.82, 0.82), "backbone": GREY, "untuned": SKY, "LLM'": ORANGE, "LLM''": BLUE,
    "tuned": BLUE,
}  # fmt: skip
STYLE = sns.axes_style("whitegrid") | {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 10, "legend.frameon": False,
    "xtick.labelsize": 10, "ytick.labelsize": 10, "axes.edgecolor": ".7", "grid.color": ".9", "figure.titlesize": 13,
}  # fmt: skip
DIFFERENCE = ("diff", "diff_ci_low", "diff_ci_high")  # of a row and Base, in pairs
NO_JUDGES = ("random", "backbone, lists of untuned")  # whom notebook 06 shows beside those that it compares
WHO = {"untuned": "the untuned LLM", "tuned": "the tuned LLM", "backbone": "the backbone"}
GROUPS = {  # of `evaluation.history_group`
    "tail": ("tail users", "N(u) at or below the median"),
    "long": ("users with long histories", "N(u) above the median"),
}
MAX_BYTES = 200_000


def save(fig: Figure, path) -> None:
    """Write `fig` as PNG, whole or not at all. Raises ValueError where it is too large, as `shown` does."""
    content = _png(fig)
    with whole(Path(path)) as aside:
        aside.write_bytes(content)


def shown(fig: Figure):
    """`fig` as an object that a notebook displays as PNG with `alternative_text`.

    A picture over 200 kB gets fewer dots per inch than 120, down to 60. Raises ValueError where that is not enough.
    """
    from IPython.display import Image

    return Image(data=_png(fig), format="png", alt=alternative_text(fig))


def alternative_text(fig: Figure) -> str:
    """What the figure says to a reader who cannot see it: its title, each panel's title and axis labels, its note."""
    parts = [fig.get_suptitle()]
    for ax in fig.axes:
        labels = [f"{axis}: {label}" for axis, label in (("x", ax.get_xlabel()), ("y", ax.get_ylabel())) if label]
        parts.append(", ".join(text for text in (ax.get_title(), *labels) if text))
    text = ". ".join(part for part in dict.fromkeys([*parts, fig.get_supxlabel()]) if part)
    return re.sub(r"\s+", " ", re.sub(r"[$\\]", "", text)) + "."


def _png(fig: Figure) -> bytes:
    for dpi in (120, 96, 76, 60):
        buffer = BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise ValueError(f"the figure {fig.get_suptitle()!r} is larger than {MAX_BYTES:,} bytes even at 60 dots per inch")


def long_tail(interactions: pd.DataFrame) -> Figure:
    """Interactions of each user and each item, ranked, on log-log axes. `interactions` has columns user, item."""
    _need(interactions, "user", "item")
    fig, axes = _panels(2)
    shares = {}
    for ax, column, colour in zip(axes, ("user", "item"), (BLUE, ORANGE), strict=True):
        counts = np.sort(interactions[column].value_counts().to_numpy())[::-1]
        ax.plot(np.arange(1, len(counts) + 1), counts, color=colour, linewidth=2.2)
        top = -(-len(counts) // 5)
        shares[column] = counts[:top].sum() / counts.sum()
        ax.axvspan(1, top, color=colour, alpha=0.12, linewidth=0)
        ax.text(0.08, 0.06, f"the busiest 20%\nhold {shares[column]:.0%}", transform=ax.transAxes, color="0.25")
        ax.set(xscale="log", yscale="log", xlabel=f"{column}s, ranked by interactions", ylim=(0.8, counts[0] * 1.6))
        _plain_log(ax.xaxis)
        _plain_log(ax.yaxis)
        ax.set_title(f"{len(counts):,} {column}s, median {np.median(counts):g} interactions")
        ax.set_ylabel("interactions (count)" if column == "user" else "")
    return _finish(fig, f"The busiest 20% of users hold {shares['user']:.0%} of the interactions")


def forest(table: pd.DataFrame, finding: str = "") -> Figure:
    """The relative gain over Base, one line per backbone and row: ours with its interval, the paper's as a diamond.

    `table` has the columns of a result table, of one metric for each backbone, and of one preset, LLM, data set and
    protocol; lines without a gain are left out. `finding` is the title; without it the title says how Llama4Rec does
    against Base. The paper's gains are of leave-one-out whatever our protocol. Right is better: for errors (RMSE) the
    sign is turned. Raises ValueError where no row was compared and where a backbone and row have two lines.
    """
    _need(table, "dataset", "backbone", "row", "metric", "value", "gain", *DIFFERENCE)
    lines = in_order(table[table["gain"].notna()])
    if lines.empty:
        raise ValueError("there is nothing to draw: no row was compared with Base")
    if lines.duplicated(["backbone", "row"]).any():
        raise ValueError("forest draws one metric of one preset, LLM, data set and protocol; filter the table first")
    sign = np.where(lines["metric"].map(_is_error), -100, 100)
    gain = sign * lines["gain"]
    reach = sign[:, None] * lines[["diff_ci_low", "diff_ci_high"]].div(lines["value"] - lines["diff"], axis=0)
    paper = sign * lines.apply(_paper_gain, axis=1)
    new = ~lines.duplicated("backbone")
    at = np.arange(len(lines)) + 1.4 * new.cumsum().to_numpy()  # room above each backbone's rows for its name
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(8.0, max(3.5, 1.5 + 0.24 * at[-1])), layout="constrained")
    colours = [COLOURS.get(row, PALETTE[i % 10]) for i, row in enumerate(lines["row"])]
    _dots(ax, at, gain, reach, colours, size=44)
    ax.scatter(paper, at, marker="D", s=36, color="black", edgecolor="white", zorder=4)
    heads = (lines["backbone"] + ", " + lines["metric"])[new]
    ax.set_yticks([*at, *(at[new] - 1)], [*lines["row"], *heads])
    for label in ax.get_yticklabels()[len(at) :]:
        label.set_fontweight("bold")
    ax.set(ylim=(at[-1] + 0.7, 0), xlabel="gain over Base (%), right is better", ylabel="backbone and row")
    note = "ours: 95% intervals over users, in pairs"
    if paper.notna().any():
        note += ";  diamonds: the paper, leave-one-out"
    return _finish(fig, finding or _verdict(lines, " and ".join(lines["metric"].unique())), note)


def gains(table: pd.DataFrame) -> Figure:
    """Llama4Rec's relative gain over Base for every backbone, with its interval, beside the paper's and beside the
    second opinion that came out best. A panel for each metric: errors move on another scale.

    `table` is that of `forest`. Raises ValueError where there is no row Llama4Rec.
    """
    _need(table, "dataset", "backbone", "row", "metric", "value", "gain", *DIFFERENCE)
    table = in_order(table[table["gain"].notna()])
    ours = table[table["row"] == "Llama4Rec"]
    if ours.empty:
        raise ValueError("there is nothing to draw: no row Llama4Rec was compared with Base")
    tasks = ours["backbone"].map(task_of)
    fig, axes = _a_panel_each(tasks, 0.42, 1.7)
    for ax, (task, lines) in zip(axes, ours.groupby(tasks, sort=False), strict=True):
        sign = -100 if _is_error(lines["metric"].iloc[0]) else 100
        reach = sign * lines[["diff_ci_low", "diff_ci_high"]].div(lines["value"] - lines["diff"], axis=0)
        others = table[table["row"].str.startswith(SECOND_OPINION)]
        best = (sign * others["gain"]).groupby(others["backbone"]).max().reindex(lines["backbone"])
        at = np.arange(len(lines))
        if best.notna().any():
            ax.scatter(best, at, marker="s", s=40, facecolor="white", edgecolor=RED, linewidth=1.8, zorder=3,
                       label="best second opinion, no LLM")  # fmt: skip
        _dots(ax, at, sign * lines["gain"], reach, BLUE, label="Llama4Rec, 95% interval")
        ax.scatter(sign * lines.apply(_paper_gain, axis=1), at, marker="D", s=36, color="black", edgecolor="white",
                   zorder=3, label="the paper's, leave-one-out")  # fmt: skip
        ax.set_yticks(at, lines["backbone"])
        ax.set(ylim=(len(lines) - 0.4, -0.6), ylabel="backbone")
        ax.set_xlabel(f"{task}: gain in {lines['metric'].iloc[0]} over Base (%), right is better")
    drawn = {name: mark for ax in axes for mark, name in zip(*ax.get_legend_handles_labels(), strict=True)}
    fig.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=3)
    return _finish(fig, _verdict(ours, " and ".join(ours["metric"].unique())))


def gain_and_cost(rows: pd.DataFrame) -> Figure:
    """Each row's mean gain over Base with its interval, the row that reads most tokens at the bottom; a panel a task.

    `rows` has columns task, row, metric, gain, ci_low, ci_high (fractions) and read, tokens of an LLM for one backbone.
    """
    _need(rows, "task", "row", "metric", "gain", "ci_low", "ci_high", "read")
    fig, axes = _a_panel_each(rows["task"], 0.36, 0.9)
    found = []
    for ax, (task, lines) in zip(axes, rows.groupby("task", sort=False), strict=True):
        lines = lines.sort_values("read", kind="stable")
        sign = -100 if _is_error(lines["metric"].iloc[0]) else 100
        gain, reach = sign * lines["gain"], sign * lines[["ci_low", "ci_high"]]
        at, colours = np.arange(len(lines)), [COLOURS.get(row, GREY) for row in lines["row"]]
        _dots(ax, at, gain, reach, colours)
        labels = lines["row"] + [f", {tokens / 1e6:.1f} M" if tokens else "" for tokens in lines["read"]]
        ax.set_yticks(at, labels)
        ax.set(ylim=(len(lines) - 0.4, -0.6), ylabel="row")
        ax.set_xlabel(f"{task}: gain in {lines['metric'].iloc[0]} over Base (%), right is better")
        found.append(f"{lines['row'][gain.idxmax()]} ({task})")
    note = "M: million tokens that an LLM reads for one backbone; one that it learns from counts three times"
    return _finish(fig, f"Largest gain: {', '.join(found)}", note)


def _a_panel_each(tasks: pd.Series, line: float, rest: float) -> tuple[Figure, list[plt.Axes]]:
    """A panel for each task, one below the other, as high as it has lines: `line` and `rest` are in inches."""
    counts = tasks.value_counts(sort=False)
    height = rest + line * len(tasks) + 0.6 * len(counts)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            len(counts), figsize=(8.0, height), squeeze=False, layout="constrained", height_ratios=counts + 0.8
        )
    return fig, list(axes.flat)


def _dots(ax: plt.Axes, at, gain, reach: pd.DataFrame, colours, size: float = 60, label: str | None = None) -> None:
    """Gains [N] left and right of 0, each on the line of its interval (`reach` [N, 2])."""
    ax.axvline(0, color="0.25", linewidth=1.5)
    ax.hlines(at, reach.min(axis=1), reach.max(axis=1), color=colours, linewidth=2.5)
    ax.scatter(gain, at, s=size, color=colours, edgecolor="0.15", zorder=4, label=label)
    ax.grid(axis="y", visible=False)


def _paper_gain(line: pd.Series) -> float:
    ours, base = (paper_value(line["dataset"], line["backbone"], row, line["metric"]) for row in (line["row"], "Base"))
    return ours / base - 1


def _verdict(lines: pd.DataFrame, metrics: str) -> str:
    """For which backbones Llama4Rec's paired difference from Base is clear of 0."""
    ours = lines[lines["row"] == "Llama4Rec"]
    sign = np.where(ours["metric"].map(_is_error), -1, 1)
    ends = sign[:, None] * ours[["diff_ci_low", "diff_ci_high"]].to_numpy(dtype=float)
    better, worse = ends.min(axis=1) > 0, ends.max(axis=1) < 0
    found = []
    for words, which in {"better": better, "worse": worse, "a tie": ~(better | worse)}.items():
        if which.any():
            *first, last = ours["backbone"][which]
            names = which.sum() if len(ours) > 3 else ", ".join(first) + " and " * bool(first) + last
            found.append(f"{words} for {names}")
    of = "" if len(ours) <= 3 else f" of {len(ours)} backbones"
    return f"Llama4Rec against Base, {metrics}: {', '.join(found)}{of}"


def by_history_length(results: pd.DataFrame, metric: str) -> Figure:
    """A metric for tail users and for users with long histories, side by side.

    `results` has columns group (tail, long: `evaluation.history_group`), row, value, ci_low, ci_high, and users, the
    number of users of the group.
    """
    _need(results, "group", "row", "value", "ci_low", "ci_high", "users")
    names = list(dict.fromkeys(results["row"]))
    groups = [name for name in GROUPS if name in set(results["group"])]
    fig, axes = _panels(len(groups), share_y=True)
    leaders: dict[str, list[str]] = {}
    for ax, group in zip(axes, groups, strict=True):
        words, side = GROUPS[group]
        rows = results[results["group"] == group].set_index("row").reindex(names)
        _bars(ax, names, rows, metric)
        ax.set_title(f"{rows['users'].max():,.0f} {words}\n{side}")
        best, _, tie = _best(rows, larger_is_better=not _is_error(metric))
        leaders.setdefault("no row" if tie else best, []).append(words)
    axes[0].set_ylabel(_metric_label(metric))
    note = "95% intervals over users;  a row leads where its interval is clear of the second's"
    finding = "; ".join(f"{leader} leads among {' and '.join(users)}" for leader, users in leaders.items())
    return _finish(fig, f"{metric}: {finding}", note)


def alpha_heatmap(grid: pd.DataFrame, chosen: tuple[float, float], test: pd.DataFrame | None = None) -> Figure:
    """What validation gains over the backbone alone, in nats (columns alpha_1, alpha_2, value); the chosen pair framed.

    The best pair of the grid gets a thinner, dashed frame where the chosen one is not as good; among equals it is the
    one with less LLM. `test` has the same pairs with their gain on test in percent: it is drawn beside, with the same
    frames. Raises ValueError where `chosen`, (alpha_1, alpha_2), is not in the grid.
    """
    _need(grid, "alpha_1", "alpha_2", "value")
    values = grid.set_index(["alpha_1", "alpha_2"])["value"].sort_index()
    if chosen not in values.index:
        raise ValueError(f"the chosen pair {chosen} is not in the grid")
    equal = np.isclose(values, values.max(), rtol=1e-12, atol=0)
    best = chosen if equal[values.index.get_loc(chosen)] else values.index[equal.argmax()]
    parts = {"log-likelihood gained (nats), validation": values}
    if test is not None:
        parts["gain over the backbone (%), test"] = test.set_index(["alpha_1", "alpha_2"])["value"].sort_index()
    fig, axes = _panels(len(parts), width=7.2 if test is None else 12)
    for ax, (label, each) in zip(axes, parts.items(), strict=True):
        cells = each.unstack("alpha_1").sort_index(ascending=False)
        sns.heatmap(
            cells, ax=ax, cmap="cividis", annot=True, fmt=".1f", linewidths=1.5, annot_kws={"size": 10},
            cbar_kws={"label": label},
        )  # fmt: skip
        _frame(ax, cells, chosen, 0, edgecolor=RED, linewidth=3.5, clip_on=False)
        if best != chosen:
            _frame(ax, cells, best, 0.1, edgecolor="0.1", linestyle="--")
        ax.set(xlabel=r"$\alpha_1$: weight of the LLM at most (0: backbone alone)", ylabel=r"$\alpha_2$: cut-off")
        ax.tick_params(axis="y", rotation=0)
    note = f"framed: chosen, {_pair(chosen)} ({values[chosen]:+.1f} nats)"
    note += ", the best of the grid" if best == chosen else ""
    note += "" if best == chosen else f"\ndashed: the best of the grid, {_pair(best)} ({values.max():+.1f} nats)"
    weight = f"a weight of {chosen[0]:g} at most" if chosen[0] else "no weight"
    title = f"Validation gives the LLM {weight} ({values[chosen]:+.1f} nats)"
    if test is not None:
        title += f"; on test that is {each[chosen]:+.1f}%, the best pair there {each.max():+.1f}%"
    return _finish(fig, title, note)


def _frame(ax: plt.Axes, cells: pd.DataFrame, pair: tuple[float, float], inset: float, **look) -> None:
    corner = cells.columns.get_loc(pair[0]) + inset, cells.index.get_loc(pair[1]) + inset
    ax.add_patch(plt.Rectangle(corner, 1 - 2 * inset, 1 - 2 * inset, fill=False, zorder=5, **look))


def _pair(alphas: tuple[float, float]) -> str:
    return f"alpha_1 = {alphas[0]:g}, alpha_2 = {alphas[1]:g}"


def weight_curve(users: pd.DataFrame, user: int | None = None) -> Figure:
    """alpha_u (eq. 7) against N(u), with the number of users below. Each row of `users` is a user, by number: columns
    n_interactions, alpha. `user`: one to mark."""
    _need(users, "n_interactions", "alpha")
    users = users.sort_values("n_interactions")
    n = users["n_interactions"].to_numpy()
    with plt.rc_context(STYLE):
        fig, (top, bottom) = plt.subplots(
            2, 1, figsize=(8, 5), sharex=True, height_ratios=(2.4, 1), layout="constrained"
        )
    top.plot(n, users["alpha"], color=BLUE, linewidth=2, marker="o", markersize=3.5)
    top.set(
        ylabel=r"weight of the LLM, $\alpha_u$ (eq. 7)", ylim=(0, max(0.05, users["alpha"].max() * 1.1)), xscale="log"
    )
    if user is not None:
        top.plot(*users.loc[user, ["n_interactions", "alpha"]], color=RED, marker="*", markersize=18)
        top.annotate(f"user {user}", users.loc[user, ["n_interactions", "alpha"]], (12, 8), textcoords="offset points")
    edges = np.geomspace(max(n.min(), 1), max(n.max(), 2) * 1.001, 31)
    bottom.hist(n, bins=edges, color=GREY, edgecolor="white")
    bottom.set(xlabel="training interactions of the user, N(u) (count, log scale)", ylabel="users (count)")
    _plain_log(bottom.xaxis, (1, 2, 5))
    median = np.median(n)
    for ax in (top, bottom):
        ax.axvline(median, color=ORANGE, linestyle="--", linewidth=1.6)
    top.text(median, 0.04, f"  median N(u) = {median:g}", color="0.25", transform=top.get_xaxis_transform())
    most, least = users["alpha"].max(), users["alpha"].min()
    whom = f"the shortest histories, {least:.2g} for the longest" if most > least else "every user"
    return _finish(fig, f"The LLM weighs {most:.2g} for {whom}")


def orders(places: pd.DataFrame) -> Figure:
    """One list of candidates in several orders side by side, each candidate a line between its places.

    Each row of `places` is a candidate: column title, then a column for each order with its place in it, 1 for the
    best, and last `next`, True for what the user really chose.
    """
    _need(places, "title", "next")
    names = list(places.columns.drop(["title", "next"]))
    with plt.rc_context(STYLE):
        fig, ax = plt.subplots(figsize=(9.0, 0.9 + 0.28 * len(places)), layout="constrained")
    at = np.arange(len(names))
    for row in places.sort_values("next").itertuples(index=False):
        place = [getattr(row, name) for name in names]
        look = {"color": BLUE, "linewidth": 3, "zorder": 3} if row.next else {"color": "0.75", "linewidth": 1.5}
        ax.plot(at, place, marker="o", **look)
        weight, colour = ("bold", BLUE) if row.next else ("normal", "0.25")
        short = textwrap.shorten(row.title, 34, placeholder="...").replace("$", r"\$")
        for x, y, side in ((at[0] - 0.06, place[0], "right"), (at[-1] + 0.06, place[-1], "left")):
            ax.text(x, y, short, ha=side, va="center", color=colour, weight=weight, fontsize=9)
    ax.set_xticks(at, [f"{name}'s order" for name in names])
    ax.set(ylim=(len(places) + 0.7, 0.3), xlim=(-1.3, at[-1] + 1.3), ylabel="place in the list")
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(visible=False)  # it would run through the titles
    moves = [f"{first} to {last}" for first, last in places.loc[places["next"], [names[0], names[-1]]].to_numpy()]
    return _finish(fig, f"What came next moves from place {' and '.join(moves)}")


def training_curve(log: pd.DataFrame) -> Figure:
    """Loss and validation metric by epoch, the kept epoch marked.

    `log` is a backbone's: columns epoch, loss, the metric under its own name (NaN where nothing was validated, an error
    is better low), seconds since the start.
    """
    _need(log, "epoch", "loss", "seconds")
    metric = _metric_of(log)
    fig, (left, right) = _panels(2)
    left.plot(log["epoch"], log["loss"], color=GREY, marker="o", markersize=4, linewidth=2)
    left.set(title="training loss", xlabel="epoch", ylabel="loss (mean per example)")
    right.plot(log["epoch"], log[metric], color=BLUE, marker="o", markersize=4, linewidth=2)
    right.set(title="validation", xlabel="epoch", ylabel=_metric_label(metric.upper()))
    note, last = "nothing was validated", log["epoch"].max()
    finding = f"{last:g} epochs take the training loss to {log['loss'].iloc[-1]:.3f}"
    if log[metric].notna().any():
        best = _kept(log, metric)
        right.plot(best["epoch"], best[metric], marker="D", markersize=9, color=RED, markeredgecolor="white")
        note = f"kept: epoch {best['epoch']:g}, {metric.upper()} {best[metric]:.4f}"
        finding = f"Validation is best at epoch {best['epoch']:g} of {last:g}: {metric.upper()} {best[metric]:.3f}"
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(fig, finding, f"{note};  {log['seconds'].max():.0f} s of training")


def tuning_curve(curve: pd.DataFrame, steps: int = 10) -> Figure:
    """Loss by optimiser step, and its mean over the last `steps`. `curve` is tuning's: columns step, loss."""
    _need(curve, "step", "loss")
    fig, (ax,) = _panels(1, width=7.2)
    ax.plot(curve["step"], curve["loss"], color=GREY, marker="o", markersize=4, linestyle="none")
    ax.plot(curve["step"], curve["loss"].rolling(steps, min_periods=1).mean(), color=BLUE, linewidth=2)
    ax.set(xlabel="step", ylabel="loss (cross-entropy + choice)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    first, last = curve["loss"].head(steps).mean(), curve["loss"].tail(steps).mean()
    finding = f"{len(curve):,} steps of tuning take the loss from {first:.2f} to {last:.2f}"
    return _finish(fig, finding, f"dots: a step's own examples;  line: mean of the last {steps} steps")


def _metric_of(log: pd.DataFrame) -> str:
    metrics = [c for c in log.columns if c not in ("epoch", "loss", "seconds", "steps", "epochs_at_most")]
    if len(metrics) != 1:
        raise ValueError(f"the log needs one validation metric beside epoch, loss and seconds, got {metrics}")
    return metrics[0]


def _kept(log: pd.DataFrame, metric: str) -> pd.Series:
    """The epoch with the best validation value."""
    return log.loc[log[metric].idxmin() if _is_error(metric) else log[metric].idxmax()]


def all_curves(logs: dict[str, list[pd.DataFrame]]) -> Figure:
    """One panel for each backbone: its validation metric by epoch, a line for each seed, the kept epochs marked.

    `logs` holds each seed's log by backbone: columns epoch, loss, the metric under its own name. A line ends where
    patience ended the training.
    """
    fig, axes = _panels(len(logs))
    fig.set_size_inches(8.0, 0.9 + 1.75 * (-(-len(logs) // 3)))
    kept = []
    for ax, (name, seeds) in zip(axes, logs.items(), strict=True):
        for log in seeds:
            metric = _metric_of(log)
            ax.plot(log["epoch"], log[metric], color=BLUE, linewidth=1.2, alpha=0.6)
            best = _kept(log, metric)
            ax.plot(best["epoch"], best[metric], marker="D", markersize=5, color=RED, markeredgecolor="white")
            kept.append(best["epoch"])
        ax.set_title(name)
        ax.set(xlabel="epoch", ylabel=metric.upper())
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    epochs = " to ".join(f"{epoch:g}" for epoch in sorted({min(kept), max(kept)}))
    note = "one line a seed;  diamonds: the epochs whose weights are kept"
    return _finish(fig, f"Validation is best after {epochs} epochs", note)


def within_list(results: pd.DataFrame, metric: str = "NDCG@5") -> Figure:
    """Each judge alone: NDCG of lists that hold their target, or the RMSE of predicted ratings.

    `results` has columns name, value, ci_low, ci_high (NaN for a value known exactly) and lists, the number of lists or
    ratings. The row named "random" is drawn as a line, too. The title compares the judges, so it leaves out that row
    and the backbone on the lists of the untuned LLM, which are other lists.
    """
    _need(results, "name", "value", "ci_low", "ci_high", "lists")
    results = results.set_index("name")
    fig, (ax,) = _panels(1, width=7.2)
    _bars(ax, list(results.index), results, metric, labels=True)
    if "random" in results.index:
        ax.axhline(results["value"]["random"], color="0.25", linestyle="--", linewidth=1.5)
    error = _is_error(metric)
    what, label = ("ratings", _metric_label(metric)) if error else ("lists", f"{metric} within the list (0 to 1)")
    ax.set(ylabel=label, xlabel="who predicts the rating" if error else "who orders the candidates")
    few, many = results["lists"].min(), results["lists"].max()
    counted = (f"{few:,.0f} to " if few < many else "") + f"{many:,.0f} {what}"
    note = f"{counted}{'' if error else ' that hold their target'};  95% intervals over users"
    return _finish(fig, _who_is_best(results, error), note)


def _who_is_best(results: pd.DataFrame, error: bool) -> str:
    value, chance = results["value"], results["value"].get("random", np.nan)
    judges = results.drop(index=list(NO_JUDGES), errors="ignore")
    best, second, tie = _best(judges, larger_is_better=not error)
    first = WHO.get(best, best)
    if results["ci_low"].fillna(value)[best] <= chance:
        return f"No order is clearly better than random ({chance:.3f}); the highest is {first} ({value[best]:.3f})"
    does = "predicts ratings best" if error else "orders the candidates best"
    finding = f"{first[0].upper()}{first[1:]} {does} ({value[best]:.3f})"
    if second is None:
        return finding
    other = f"{WHO.get(second, second)} ({value[second]:.3f})"
    return f"{finding}; {other} is a tie" if tie else f"{finding}, ahead of {other}"


def _need(frame: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the column {missing[0]!r}; it needs {', '.join(columns)}")
    if frame.empty:
        raise ValueError("there is nothing to draw: the frame has no rows")


def _best(rows: pd.DataFrame, larger_is_better: bool = True) -> tuple[str, str | None, bool]:
    """The best of `rows` (index: name), the second best, and whether their intervals overlap."""
    ranked = rows["value"].dropna().sort_values(ascending=not larger_is_better, kind="stable").index
    if len(ranked) < 2:
        return ranked[0], None, False
    better, worse = ranked[:2] if larger_is_better else ranked[1::-1]
    low, high = (rows[end].fillna(rows["value"]) for end in ("ci_low", "ci_high"))
    return ranked[0], ranked[1], bool(low[better] <= high[worse])


def _panels(count: int, width: float = 8.0, share_y: bool = False) -> tuple[Figure, list[plt.Axes]]:
    """`count` panels: one row of up to three, two rows of two, then rows of three."""
    columns = 2 if count == 4 else min(count, 3)
    rows = -(-count // columns)
    with plt.rc_context(STYLE):
        fig, axes = plt.subplots(
            rows, columns, figsize=(width, 0.9 + 3.5 * rows), sharey=share_y, squeeze=False, layout="constrained"
        )
    for spare in axes.flat[count:]:
        spare.remove()
    return fig, list(axes.flat[:count])


def _bars(ax: plt.Axes, names: list[str], rows: pd.DataFrame, metric: str, labels: bool = False) -> None:
    """A bar per row with whiskers from ci_low to ci_high; `rows` is indexed by name, NaN where there is none.

    Errors (RMSE, MAE) differ in the second decimal, so they are drawn as points on an axis that need not start at 0.
    """
    x, value = np.arange(len(names)), rows["value"].to_numpy(dtype=float)
    low, high = rows["ci_low"].to_numpy(dtype=float), rows["ci_high"].to_numpy(dtype=float)
    colours = [COLOURS.get(name, PALETTE[i % 10]) for i, name in enumerate(names)]
    whiskers = np.maximum([value - low, high - value], 0)
    ax.errorbar(x, value, whiskers, fmt="none", ecolor="0.15", elinewidth=1.6, capsize=4, zorder=3)
    if _is_error(metric):
        ax.scatter(x, value, s=110, color=colours, edgecolor="0.15", zorder=4)
        ax.set_xlim(-0.6, len(names) - 0.4)
    else:
        ax.bar(x, value, width=0.68, color=colours, zorder=2)
    if labels:
        for at, height, top in zip(x, value, np.fmax(high, value), strict=True):
            ax.annotate(f"{height:.3f}", (at, top), (0, 4), textcoords="offset points", ha="center", va="bottom")
        ax.margins(y=0.12)
    crowded = sum(map(len, names)) > 24
    ax.set_xticks(x, names, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    if crowded:
        plt.setp(ax.get_xticklabels(), rotation_mode="anchor")
    ax.grid(axis="x", visible=False)


def _plain_log(axis, steps: tuple[int, ...] = (1,)) -> None:
    """Label a logarithmic axis 1, 10, 100, 1,000 (and 2, 5, ... with `steps`)."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _is_error(metric: str) -> bool:
    return metric.upper() in ERRORS


def _metric_label(metric: str) -> str:
    if _is_error(metric):
        return f"{metric} (rating points, lower is better)"
    return f"{metric} (0 to 1)" if metric.split("@")[0].upper() in ("HR", "NDCG") else metric


def _finish(fig: Figure, title: str, note: str = "") -> Figure:
    """Title above, note below; the figure is taken from pyplot's hands, so a notebook shows it once."""
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.07)
    fig.suptitle(textwrap.fill(title, int(9 * fig.get_figwidth())), fontweight="bold")
    if note:
        fig.supxlabel(note, fontsize=10, color="0.35")
    sns.despine(fig)
    plt.close(fig)
    return fig
