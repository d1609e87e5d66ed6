"""Figures of the data, the runs and the tables: each function takes a DataFrame and returns a matplotlib Figure.

A method has the same colour in every figure, from seaborn's colour-blind-safe palette; whiskers are 95% intervals.
`save` writes a PNG of at most 200 kB.
"""

from io import BytesIO
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from llama4rec_core.files import whole
from llama4rec_core.tables import in_order

PALETTE = sns.color_palette("colorblind", 10)
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
COLOURS = {
    "Base": GREY, "IFT": ORANGE, "Llama4Rec": BLUE, "w/o DA": GREEN, "w/o PA": PURPLE, "w/o AA": BROWN,
    "random DA": PINK, "random": GREY, "untuned": ORANGE, "tuned": BLUE,
}  # fmt: skip
STYLE = sns.axes_style("whitegrid") | {
    "font.size": 11, "axes.titlesize": 12, "axes.labelsize": 11, "legend.fontsize": 10, "legend.frameon": False,
    "xtick.labelsize": 10, "ytick.labelsize": 10, "axes.edgecolor": ".7", "grid.color": ".9", "figure.titlesize": 13,
}  # fmt: skip
ERRORS = ("RMSE", "MAE")
MAX_BYTES = 200_000


def save(fig: Figure, path, dpi: int = 120) -> None:
    """Write `fig` as PNG, whole or not at all. A picture over 200 kB gets fewer dots per inch, down to 60."""
    while dpi >= 60:
        buffer = BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
        if buffer.tell() <= MAX_BYTES:
            with whole(Path(path)) as aside:
                aside.write_bytes(buffer.getvalue())
            return
        dpi = int(dpi * 0.8)
    raise ValueError(f"{Path(path).name} is larger than {MAX_BYTES:,} bytes even at 60 dots per inch; draw less in it")


def long_tail(interactions: pd.DataFrame, title: str = "Interactions per user and per item") -> Figure:
    """Interactions of each user and each item, ranked, on log-log axes. `interactions` has columns user, item."""
    _need(interactions, "user", "item")
    fig, axes = _panels(2)
    for ax, column, colour in zip(axes, ("user", "item"), (BLUE, ORANGE), strict=True):
        counts = np.sort(interactions[column].value_counts().to_numpy())[::-1]
        ax.plot(np.arange(1, len(counts) + 1), counts, color=colour, linewidth=2.2)
        top = -(-len(counts) // 5)
        ax.axvspan(1, top, color=colour, alpha=0.12, linewidth=0)
        share = f"the busiest 20%\nhold {counts[:top].sum() / counts.sum():.0%}"
        ax.text(0.08, 0.06, share, transform=ax.transAxes, color="0.25")
        ax.set(xscale="log", yscale="log", xlabel=f"{column}s, ranked by interactions", ylim=(0.8, counts[0] * 1.6))
        _plain_log(ax.xaxis)
        _plain_log(ax.yaxis)
        ax.set_title(f"{len(counts):,} {column}s, median {np.median(counts):g} interactions")
        ax.set_ylabel("interactions (count)" if column == "user" else "")
    return _finish(fig, title)


def method_bars(table: pd.DataFrame, metric: str, title: str | None = None) -> Figure:
    """One panel per backbone: each method's `metric` with its interval, and the paper's value as a diamond beside it.

    `table` has the columns of a result table; its rows must be of one preset, LLM, data set and protocol.
    """
    _need(table, "backbone", "method", "metric", "value", "ci_low", "ci_high", "paper_value")
    rows = in_order(table[table["metric"] == metric])
    if rows.empty:
        raise ValueError(f"the table has no metric {metric!r}; it has {', '.join(sorted(table['metric'].unique()))}")
    if rows.duplicated(["backbone", "method"]).any():
        raise ValueError("method_bars draws one preset, LLM, data set and protocol at a time; filter the table first")
    backbones, methods = rows["backbone"].unique(), list(in_order(rows[["method"]].drop_duplicates())["method"])
    fig, axes = _panels(len(backbones), share_y=True)
    for ax, backbone in zip(axes, backbones, strict=True):
        ours = rows[rows["backbone"] == backbone].set_index("method").reindex(methods)
        _bars(ax, methods, ours, metric)
        paper = ours["paper_value"].to_numpy(dtype=float)
        ax.scatter(np.arange(len(methods)) + 0.2, paper, marker="D", s=42, color="black", edgecolor="white", zorder=4)
        ax.set_title(backbone)
        ax.set_ylabel(_metric_label(metric) if ax.get_subplotspec().is_first_col() else "")
    note = "ours: 95% intervals over users"
    if rows["paper_value"].notna().any():
        note += ";  diamonds: the paper"
    return _finish(fig, title or f"{metric} by method", note)


def alpha_heatmap(grid: pd.DataFrame, metric: str, larger_is_better: bool = True, title: str | None = None) -> Figure:
    """The validation metric over a grid (columns alpha_1, alpha_2, value), the best framed; a tie goes to less LLM."""
    _need(grid, "alpha_1", "alpha_2", "value")
    best = grid["value"].max() if larger_is_better else grid["value"].min()
    chosen = grid[np.isclose(grid["value"], best, rtol=1e-12, atol=0)].sort_values(["alpha_1", "alpha_2"]).iloc[0]
    cells = grid.pivot(index="alpha_2", columns="alpha_1", values="value").sort_index(ascending=False)
    fig, (ax,) = _panels(1, width=7.2)
    sns.heatmap(
        cells, ax=ax, cmap="cividis" if larger_is_better else "cividis_r", annot=True, fmt=".4f", linewidths=1.5,
        annot_kws={"size": 10}, cbar_kws={"label": f"{_metric_label(metric)}, validation"},
    )  # fmt: skip
    column, row = cells.columns.get_loc(chosen["alpha_1"]), cells.index.get_loc(chosen["alpha_2"])
    ax.add_patch(plt.Rectangle((column, row), 1, 1, fill=False, edgecolor=RED, linewidth=3.5, clip_on=False, zorder=5))
    ax.set(xlabel=r"$\alpha_1$: weight of the LLM at most (0: backbone alone)", ylabel=r"$\alpha_2$: cut-off")
    ax.tick_params(axis="y", rotation=0)
    note = f"framed: the best, alpha_1 = {chosen['alpha_1']:g}, alpha_2 = {chosen['alpha_2']:g} (ties: less LLM)"
    return _finish(fig, title or f"{metric} on validation, by alpha_1 and alpha_2", note)


def weight_curve(users: pd.DataFrame, title: str = "How much each user leans on the LLM (eq. 7)") -> Figure:
    """alpha_u against N(u), with the number of users below. `users` has columns n_interactions, alpha; row = user."""
    _need(users, "n_interactions", "alpha")
    users = users.sort_values("n_interactions")
    n = users["n_interactions"].to_numpy()
    with plt.rc_context(STYLE):
        fig, (top, bottom) = plt.subplots(
            2, 1, figsize=(8, 5), sharex=True, height_ratios=(2.4, 1), layout="constrained"
        )
    top.plot(n, users["alpha"], color=BLUE, linewidth=2, marker="o", markersize=3.5)
    top.set(ylabel=r"weight of the LLM, $\alpha_u$", ylim=(0, max(0.05, users["alpha"].max() * 1.1)), xscale="log")
    edges = np.geomspace(max(n.min(), 1), max(n.max(), 2) * 1.001, 31)
    bottom.hist(n, bins=edges, color=GREY, edgecolor="white")
    bottom.set(xlabel="training interactions of the user, N(u) (count, log scale)", ylabel="users (count)")
    _plain_log(bottom.xaxis, (1, 2, 5))
    median = np.median(n)
    for ax in (top, bottom):
        ax.axvline(median, color=ORANGE, linestyle="--", linewidth=1.6)
    top.text(median, 0.04, f"  median N(u) = {median:g}", color="0.25", transform=top.get_xaxis_transform())
    return _finish(fig, title)


def training_curve(log: pd.DataFrame, title: str = "Training") -> Figure:
    """Loss and validation metric by epoch, the kept epoch marked.

    `log` is a backbone's: columns epoch, loss, the metric under its own name (NaN where nothing was validated, an error
    is better low), and maybe seconds since the start.
    """
    _need(log, "epoch", "loss")
    metric = _metric_of(log)
    fig, (left, right) = _panels(2)
    left.plot(log["epoch"], log["loss"], color=GREY, marker="o", markersize=4, linewidth=2)
    left.set(title="training loss", xlabel="epoch", ylabel="loss (mean per example)")
    right.plot(log["epoch"], log[metric], color=BLUE, marker="o", markersize=4, linewidth=2)
    right.set(title="validation", xlabel="epoch", ylabel=_metric_label(metric))
    note = "nothing was validated"
    if log[metric].notna().any():
        best = _kept(log, metric)
        right.plot(best["epoch"], best[metric], marker="D", markersize=9, color=RED, markeredgecolor="white")
        note = f"kept: epoch {best['epoch']:g}, {metric} {best[metric]:.4f}"
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if "seconds" in log:
        note += f";  {log['seconds'].max():.0f} s of training"
    return _finish(fig, title, note)


def tuning_curve(curve: pd.DataFrame, title: str = "Tuning", steps: int = 10) -> Figure:
    """Loss by optimiser step, and its mean over the last `steps`. `curve` is tuning's: columns step, loss."""
    _need(curve, "step", "loss")
    fig, (ax,) = _panels(1, width=7.2)
    ax.plot(curve["step"], curve["loss"], color=GREY, marker="o", markersize=4, linestyle="none")
    ax.plot(curve["step"], curve["loss"].rolling(steps, min_periods=1).mean(), color=BLUE, linewidth=2)
    ax.set(xlabel="step", ylabel="loss (cross-entropy + choice)")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _finish(fig, title, f"dots: a step's own examples;  line: mean of the last {steps} steps")


def _metric_of(log: pd.DataFrame) -> str:
    metrics = [c for c in log.columns if c not in ("epoch", "loss", "seconds")]
    if len(metrics) != 1:
        raise ValueError(f"the log needs one validation metric beside epoch, loss and seconds, got {metrics}")
    return metrics[0]


def _kept(log: pd.DataFrame, metric: str) -> pd.Series:
    """The epoch with the best validation value."""
    return log.loc[log[metric].idxmin() if metric.upper() in ERRORS else log[metric].idxmax()]


def all_curves(logs: dict[str, list[pd.DataFrame]], title: str = "Validation by epoch, one line a seed") -> Figure:
    """One panel for each backbone: its validation metric by epoch in each seed's log (columns epoch, loss, the metric
    under its own name), the kept epochs marked. Epochs go to the right as far as patience let them."""
    fig, axes = _panels(len(logs))
    fig.set_size_inches(8.0, 0.9 + 1.75 * (-(-len(logs) // 3)))
    for ax, (name, seeds) in zip(axes, logs.items(), strict=True):
        for log in seeds:
            metric = _metric_of(log)
            ax.plot(log["epoch"], log[metric], color=BLUE, linewidth=1.2, alpha=0.6)
            best = _kept(log, metric)
            ax.plot(best["epoch"], best[metric], marker="D", markersize=5, color=RED, markeredgecolor="white")
        ax.set_title(name)
        ax.set(xlabel="epoch", ylabel=metric.upper())
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    return _finish(fig, title, "diamonds: the epochs whose weights are kept")


def within_list(results: pd.DataFrame, k: int = 5, title: str = "Does the LLM order the candidates?") -> Figure:
    """Within-list NDCG@k of random order, the untuned and the tuned LLM (or any names).

    `results` has columns name, value, ci_low, ci_high (NaN for a value known exactly) and maybe lists, the number of
    lists that contain the target. The row named "random" is drawn as a line.
    """
    _need(results, "name", "value", "ci_low", "ci_high")
    results = results.set_index("name")
    fig, (ax,) = _panels(1, width=7.2)
    _bars(ax, list(results.index), results, f"NDCG@{k}", labels=True)
    if "random" in results.index:
        ax.axhline(results["value"]["random"], color="0.25", linestyle="--", linewidth=1.5)
    ax.set(ylabel=f"NDCG@{k} within the list (0 to 1)", xlabel="who orders the candidates")
    note = "95% intervals over users"
    if "lists" in results:
        few, many = results["lists"].min(), results["lists"].max()
        note = (f"{few:,.0f} to " if few < many else "") + f"{many:,.0f} lists that contain the target;  " + note
    return _finish(fig, title, note)


def by_minute(curve: pd.DataFrame, random: float, k: int = 5, title: str = "What tuning buys") -> Figure:
    """Within-list NDCG@k by minutes of tuning, a line for each way of ranking; 0 minutes is the untuned LLM.

    `curve` has columns mode, minutes, value, ci_low, ci_high; random order's value is drawn as a line.
    """
    _need(curve, "mode", "minutes", "value", "ci_low", "ci_high")
    fig, (ax,) = _panels(1)
    names = list(dict.fromkeys(curve["mode"]))
    step = 0.01 * max(curve["minutes"].max(), 1e-9)
    for n, (name, colour) in enumerate(zip(names, PALETTE, strict=False)):
        rows = curve[curve["mode"] == name].sort_values("minutes")
        reach = [rows["value"] - rows["ci_low"], rows["ci_high"] - rows["value"]]
        at = rows["minutes"] + step * (n - len(names) / 2)  # side by side, so that whiskers can be told apart
        ax.errorbar(at, rows["value"], yerr=reach, color=colour, marker="o", linewidth=2, capsize=3, label=name)
    ax.axhline(random, color="0.25", linestyle="--", linewidth=1.5, label="random order")
    ax.set(xlabel="minutes of tuning", ylabel=f"NDCG@{k} within the list (0 to 1)")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))  # beside the whiskers, not on them
    return _finish(fig, title, "lists that hold their target, none of them tuned on; 95% intervals over users")


def head_tail(results: pd.DataFrame, metric: str, title: str | None = None) -> Figure:
    """A metric for tail and head users side by side. `results`: columns group (tail, head), method, value, ci_low,
    ci_high, and maybe users, the number of users of the group."""
    _need(results, "group", "method", "value", "ci_low", "ci_high")
    methods = list(dict.fromkeys(results["method"]))
    groups = [name for name in ("tail", "head") if name in set(results["group"])]
    fig, axes = _panels(len(groups), share_y=True)
    for ax, group in zip(axes, groups, strict=False):
        rows = results[results["group"] == group].set_index("method").reindex(methods)
        _bars(ax, methods, rows, metric)
        side = "at or below" if group == "tail" else "above"
        count = f"{rows['users'].max():,.0f} users" if "users" in rows else "users"
        ax.set_title(f"{group}: {count} {side} the median N(u)")
    axes[0].set_ylabel(_metric_label(metric))
    return _finish(fig, title or f"{metric} of tail and head users", "95% intervals over users")


# --- shared parts ----------------------------------------------------------------------------------


def _need(frame: pd.DataFrame, *columns: str) -> None:
    missing = [column for column in columns if column not in frame.columns]
    if missing:
        raise ValueError(f"the frame lacks the column {missing[0]!r}; it needs {', '.join(columns)}")
    if frame.empty:
        raise ValueError("there is nothing to draw: the frame has no rows")


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


def _bars(ax: plt.Axes, methods: list[str], rows: pd.DataFrame, metric: str, labels: bool = False) -> None:
    """A bar per method with whiskers from ci_low to ci_high; `rows` is indexed by method, NaN where it has no row.

    Errors (RMSE, MAE) differ in the second decimal, so they are drawn as points on an axis that need not start at 0.
    """
    x, value = np.arange(len(methods)), rows["value"].to_numpy(dtype=float)
    low, high = rows["ci_low"].to_numpy(dtype=float), rows["ci_high"].to_numpy(dtype=float)
    colours = [COLOURS.get(method, PALETTE[i % 10]) for i, method in enumerate(methods)]
    whiskers = np.maximum([value - low, high - value], 0)
    ax.errorbar(x, value, whiskers, fmt="none", ecolor="0.15", elinewidth=1.6, capsize=4, zorder=3)
    if metric.upper() in ERRORS:
        ax.scatter(x, value, s=110, color=colours, edgecolor="0.15", zorder=4)
        ax.set_xlim(-0.6, len(methods) - 0.4)
    else:
        ax.bar(x, value, width=0.68, color=colours, zorder=2)
    if labels:
        for at, height, top in zip(x, value, np.fmax(high, value), strict=True):
            ax.annotate(f"{height:.3f}", (at, top), (0, 4), textcoords="offset points", ha="center", va="bottom")
        ax.margins(y=0.12)
    crowded = sum(map(len, methods)) > 24
    ax.set_xticks(x, methods, rotation=35 if crowded else 0, ha="right" if crowded else "center")
    if crowded:
        plt.setp(ax.get_xticklabels(), rotation_mode="anchor")
    ax.grid(axis="x", visible=False)


def _plain_log(axis, steps: tuple[int, ...] = (1,)) -> None:
    """Label a logarithmic axis 1, 10, 100, 1,000 (and 2, 5, ... with `steps`)."""
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def _metric_label(metric: str) -> str:
    name = metric.split("@")[0].upper()
    if name in ERRORS:
        return f"{metric} (rating points, lower is better)"
    return f"{metric} (0 to 1)" if name in ("HR", "NDCG") else metric


def _finish(fig: Figure, title: str, note: str = "") -> Figure:
    """Title above, note below; the figure is taken from pyplot's hands, so a notebook shows it once."""
    fig.get_layout_engine().set(w_pad=0.08, h_pad=0.07)
    fig.suptitle(title, fontweight="bold")
    if note:
        fig.supxlabel(note, fontsize=10, color="0.35")
    sns.despine(fig)
    plt.close(fig)
    return fig
