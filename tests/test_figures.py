"""Each figure shows the numbers it was given, has titles and labels, and is saved small and whole."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from llama4rec_core import figures

METHODS = ("Base", "IFT", "Llama4Rec")


def bars(metric="HR@5", backbones=("MF", "LightGCN"), low=-0.1, high=0.1):
    """Values of .1, .2, .3 for the methods; of each backbone, the interval of Llama4Rec's difference from Base."""
    rows = [
        (b, m, metric, 0.1 * i, 0.1 * i - 0.02, 0.1 * i + 0.02, 0.05 * i)
        for b in backbones
        for i, m in enumerate(METHODS, 1)
    ]
    table = pd.DataFrame(rows, columns=["backbone", "row", "metric", "value", "ci_low", "ci_high", "paper_value"])
    low, high = (np.repeat(np.broadcast_to(end, len(backbones)), 3) for end in (low, high))
    spread = {"diff": (low + high) / 2, "diff_ci_low": low, "diff_ci_high": high, "gain": (low + high) / 0.2}
    ours = table["row"] == "Llama4Rec"
    more = {name: np.where(ours, ends, np.nan) for name, ends in spread.items()}
    return table.assign(dataset="ml-100k", **more)


INTERACTIONS = pd.DataFrame({"user": np.repeat(np.arange(9), np.arange(9, 0, -1)), "item": np.arange(45) % 7})
GRID = pd.DataFrame(
    [(a, b, a * (1 - a) + b / 10) for a in (0, 0.5, 0.9) for b in (0.1, 0.9)], columns=["alpha_1", "alpha_2", "value"]
)
NATS = GRID.assign(value=100 * GRID["value"])
USERS = pd.DataFrame({"n_interactions": [1, 3, 700], "alpha": [0.5, 0.4, 0.1]})
LOG = pd.DataFrame({"epoch": [1, 2, 3], "loss": [0.7, 0.5, 0.4], "ndcg@10": [0.01, 0.03, 0.02], "seconds": [2, 3, 4.4]})
LISTS = pd.DataFrame(
    [("random", 0.295, np.nan, np.nan, 112), ("untuned", 0.3, 0.27, 0.33, 112), ("tuned", 0.34, 0.31, 0.37, 112)],
    columns=["name", "value", "ci_low", "ci_high", "lists"],
)
GROUPS = pd.concat([bars(backbones=["MF"]).assign(group=group, users=n) for group, n in (("long", 40), ("tail", 50))])

FIGURES = {
    "long_tail": lambda: figures.long_tail(INTERACTIONS),
    "forest": lambda: figures.forest(GAINS),
    "gains": lambda: figures.gains(GAINS),
    "gain_and_cost": lambda: figures.gain_and_cost(COSTS),
    "alpha_heatmap": lambda: figures.alpha_heatmap(GRID, (0.5, 0.1)),
    "weight_curve": lambda: figures.weight_curve(USERS),
    "training_curve": lambda: figures.training_curve(LOG),
    "tuning_curve": lambda: figures.tuning_curve(pd.DataFrame({"step": [1, 2, 3], "loss": [4.0, 2.0, 3.0]})),
    "all_curves": lambda: figures.all_curves(
        {"SASRec": [LOG, LOG], "MF": [LOG], "NFM": [LOG], "DCN": [LOG], "SGL": [LOG]}
    ),
    "within_list": lambda: figures.within_list(LISTS),
    "by_history_length": lambda: figures.by_history_length(GROUPS, "HR@5"),
}


GAINS = pd.DataFrame(
    [
        ("LightGCN", "Base", "NDCG@5", 0.5, np.nan, np.nan, np.nan, np.nan),
        ("LightGCN", "Llama4Rec", "NDCG@5", 0.6, 0.1, 0.05, 0.15, 0.2),
        ("LightGCN", "Base + EASE", "NDCG@5", 0.4, -0.1, -0.2, 0.0, -0.2),
        ("DeepFM", "Llama4Rec", "RMSE", 1.1, 0.1, -0.1, 0.2, 0.1),
    ],
    columns=["backbone", "row", "metric", "value", "diff", "diff_ci_low", "diff_ci_high", "gain"],
).assign(dataset="ml-100k")


COSTS = pd.DataFrame(
    [
        ("direct", "Llama4Rec", "NDCG@5", 0.2, 0.1, 0.3, 2_000_000),
        ("direct", "Base + EASE", "NDCG@5", 0.05, 0.04, 0.06, 0),
        ("direct", "IFT", "NDCG@5", -0.01, -0.02, 0.0, 1_500_000),
        ("rating", "IFT", "RMSE", 0.08, 0.06, 0.1, 1_400_000),
        ("rating", "Base + biases", "RMSE", -0.01, -0.02, 0.0, 0),
    ],
    columns=["task", "row", "metric", "gain", "ci_low", "ci_high", "read"],
)


def texts(fig):
    fig.canvas.draw()
    return [text.get_text() for text in fig.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_titled_labelled_small_and_closed(name, tmp_path):
    fig = FIGURES[name]()
    assert isinstance(fig, Figure) and fig.get_suptitle() and plt.get_fignums() == []
    assert any(ax.get_ylabel() for ax in fig.axes)
    figures.save(fig, tmp_path / "figures" / f"{name}.png")
    (written,) = (tmp_path / "figures").iterdir()
    content = written.read_bytes()
    assert content.startswith(b"\x89PNG") and 5_000 < len(content) < 200_000
    width, height = plt.imread(written).shape[1::-1]
    assert 800 <= width <= 1000 and 400 <= height <= 1000
    figures.save(FIGURES[name](), written)
    assert written.read_bytes() == content


def test_the_forest_shows_relative_gains_with_right_as_better_and_the_papers_beside():
    """Over a Base of .5, +.1 [.05, .15] is 20% [10%, 30%]; an RMSE 10% [-10%, 20%] higher is drawn to the left."""
    fig = figures.forest(GAINS)
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "Llama4Rec", "Base + EASE", "Llama4Rec", "LightGCN, NDCG@5", "DeepFM, RMSE",
    ]  # fmt: skip
    spans, ours, papers = ax.collections
    ends = [segment[:, 0].tolist() for segment in spans.get_segments()]
    np.testing.assert_allclose(ends, [[10, 30], [-40, 0], [-20, 10]])
    np.testing.assert_allclose(ours.get_offsets()[:, 0], [20, -20, -10])
    found = np.ma.filled(papers.get_offsets()[:, 0], np.nan)
    np.testing.assert_allclose(found, [100 * (608 / 447 - 1), np.nan, 100 * (1 - 10306 / 10487)])
    assert np.all(np.diff(ours.get_offsets()[:, 1]) > 0) and ax.get_ylim()[0] > ax.get_ylim()[1]


def test_gains_has_a_panel_for_each_task_and_the_best_second_opinion_beside():
    more = pd.concat([GAINS, GAINS.iloc[[2]].assign(row="Base + item-kNN", gain=0.04)])
    fig = figures.gains(more)
    direct, rating = fig.axes
    assert [label.get_text() for label in direct.get_yticklabels()] == ["LightGCN"]
    best, spans, ours, papers = direct.collections
    assert spans.get_segments()[0][:, 0].tolist() == pytest.approx([10, 30])
    drawn = [each.get_offsets()[0, 0] for each in (best, ours, papers)]
    assert drawn == pytest.approx([4, 20, 100 * (608 / 447 - 1)])
    spans, ours, papers = rating.collections  # no second opinion was asked about ratings
    assert ours.get_offsets()[0, 0] == pytest.approx(-10)  # a larger error: to the left
    (legend,) = fig.legends
    assert len(legend.get_texts()) == 3
    assert "direct" in direct.get_xlabel() and "RMSE" in rating.get_xlabel()


def test_rows_stand_in_the_order_of_what_they_cost_with_right_as_better():
    fig = figures.gain_and_cost(COSTS)
    direct, rating = fig.axes
    assert [label.get_text() for label in direct.get_yticklabels()] == ["Base + EASE", "IFT, 1.5 M", "Llama4Rec, 2.0 M"]
    spans, dots = direct.collections
    np.testing.assert_allclose(dots.get_offsets(), [[5, 0], [-1, 1], [20, 2]])
    np.testing.assert_allclose([each[:, 0] for each in spans.get_segments()], [[4, 6], [-2, 0], [10, 30]])
    np.testing.assert_allclose(rating.collections[1].get_offsets()[:, 0], [1, -8])  # an RMSE that falls is a gain
    assert fig.get_suptitle() == "Largest gain: Llama4Rec (direct), Base + biases (rating)"


def frames(fig):
    """Corner and line width of the heatmap's frames: cells are 1 by 1, the first column is the smallest alpha_1, the
    first row the largest alpha_2."""
    return [(patch.get_xy(), patch.get_linewidth()) for patch in fig.axes[0].patches if not patch.get_fill()]


def test_the_heatmap_frames_the_chosen_pair_and_marks_the_best_one_thinner():
    fig = figures.alpha_heatmap(NATS, (0.0, 0.9))  # the values of alpha_1 = 0: 1, 9
    (chosen, thick), (best, thin) = frames(fig)
    assert chosen == (0, 0) and best == (1.1, 0.1) and thin < thick
    note = " ".join(texts(fig))
    assert "framed: chosen, alpha_1 = 0, alpha_2 = 0.9 (+9.0 nats)" in note
    assert "dashed: the best of the grid, alpha_1 = 0.5, alpha_2 = 0.9 (+34.0 nats)" in note
    assert "Validation gives the LLM no weight (+9.0 nats)" in note


def test_a_chosen_pair_that_is_the_best_needs_no_second_sign():
    fig = figures.alpha_heatmap(NATS, (0.5, 0.9))
    assert [corner for corner, _ in frames(fig)] == [(1, 0)]
    assert "framed: chosen, alpha_1 = 0.5, alpha_2 = 0.9 (+34.0 nats), the best of the grid" in texts(fig)
    assert "Validation gives the LLM a weight of 0.5 at most (+34.0 nats)" in texts(fig)
    equal = figures.alpha_heatmap(NATS.assign(value=0.1), (0.9, 0.9))
    assert [corner for corner, _ in frames(equal)] == [(2, 0)]  # as good as any


def test_test_stands_beside_validation_with_the_same_frames():
    test = GRID.assign(value=[0, 0, 1, 2, 3, 5])
    fig = figures.alpha_heatmap(NATS, (0.9, 0.1), test)
    valid, beside = fig.axes[:2]
    corners = [[patch.get_xy() for patch in ax.patches] for ax in (valid, beside)]
    assert corners[0] == corners[1] == [(2, 1), (1.1, 0.1)]
    assert "on test that is +3.0%, the best pair there +5.0%" in " ".join(fig.get_suptitle().split())
    assert beside.collections[0].get_array().ravel().tolist() == [0, 2, 5, 0, 1, 3]


def test_the_best_pair_among_equals_is_the_one_with_less_llm():
    tied = NATS.assign(value=[0.1, 0.1, 0.1, 0.1, 0.1, 0.05])
    assert [corner for corner, _ in frames(figures.alpha_heatmap(tied, (0.9, 0.9)))] == [(2, 0), (0.1, 1.1)]


def test_the_training_curve_names_the_kept_epoch():
    assert "kept: epoch 2, NDCG@10 0.0300;  4 s of training" in texts(figures.training_curve(LOG))
    lowest = figures.training_curve(LOG.rename(columns={"ndcg@10": "rmse"}))
    assert any("kept: epoch 1" in text for text in texts(lowest))
    assert any(
        "nothing was validated" in text for text in texts(figures.training_curve(LOG.assign(**{"ndcg@10": np.nan})))
    )


def test_the_long_tail_counts_what_it_is_given():
    fig = figures.long_tail(INTERACTIONS)
    np.testing.assert_array_equal(fig.axes[0].lines[0].get_ydata(), np.arange(9, 0, -1))
    assert "9 users, median 5 interactions" in texts(fig)
    assert any("hold 38%" in text for text in texts(fig))  # the busiest 2 of 9 users: 17 of 45


def test_tail_users_stand_before_long_histories_with_their_number():
    titles = [ax.get_title() for ax in figures.by_history_length(GROUPS, "HR@5").axes]
    assert titles == [
        "50 tail users\nN(u) at or below the median", "40 users with long histories\nN(u) above the median",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: figures.long_tail(INTERACTIONS[["user"]]), "lacks the column 'item'"),
        (lambda: figures.long_tail(INTERACTIONS.iloc[:0]), "nothing to draw"),
        (lambda: figures.forest(pd.concat([GAINS, GAINS])), "one metric of one preset, LLM, data set"),
        (lambda: figures.forest(GAINS[:1]), "no row was compared with Base"),
        (lambda: figures.gains(GAINS[2:3]), "no row Llama4Rec was compared with Base"),
        (lambda: figures.training_curve(LOG.assign(extra=1)), "needs one validation metric"),
        (lambda: figures.alpha_heatmap(GRID, (0.3, 0.1)), r"pair \(0.3, 0.1\) is not in the grid"),
    ],
)
def test_figures_refuse(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_a_large_picture_gets_fewer_dots(tmp_path):
    fig = Figure(figsize=(8, 5))
    fig.add_subplot().imshow(np.random.default_rng(0).random((220, 220, 3)))
    figures.save(fig, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size <= figures.MAX_BYTES
    assert plt.imread(tmp_path / "noise.png").shape[1] < 960
    noise = Figure(figsize=(20, 12))
    noise.add_subplot().imshow(np.random.default_rng(0).random((900, 1400, 3)))
    with pytest.raises(ValueError, match="larger than 200,000 bytes even at 60 dots per inch"):
        figures.save(noise, tmp_path / "never.png")
    assert not (tmp_path / "never.png").exists()


def test_tuning_curve_shows_the_mean_of_the_last_steps():
    fig = figures.tuning_curve(pd.DataFrame({"step": [1, 2, 3], "loss": [4.0, 2.0, 3.0]}), steps=2)
    assert [list(line.get_ydata()) for line in fig.axes[0].lines] == [[4, 2, 3], [4, 3, 2.5]]


def test_within_list_says_how_many_lists_each_bar_is_of():
    more = pd.DataFrame({"name": ["random", "untuned", "LLM'"], "value": 0.3, "ci_low": 0.2, "ci_high": 0.4})
    assert "143 to 148 lists" in " ".join(texts(figures.within_list(more.assign(lists=[np.nan, 143, 148]))))
    assert " to " not in texts(figures.within_list(more.assign(lists=[np.nan, 148, 148])))[-1]


# --- titles and alternative text -------------------------------------------------------------------


def results(*rows):
    return pd.DataFrame(rows, columns=["name", "value", "ci_low", "ci_high"]).assign(lists=50)


PLACES = pd.DataFrame(
    {"title": ["Heat", "Fargo", "$"], "backbone": [1, 2, 3], "LLM": [3, 2, 1], "blend": [2, 3, 1], "next": [0, 0, 1]}
).astype({"next": bool})
SHARP = GROUPS.assign(ci_low=lambda rows: rows["value"] - 1e-3, ci_high=lambda rows: rows["value"] + 1e-3)


@pytest.mark.parametrize(
    ("draw", "title"),
    [
        (lambda: figures.long_tail(INTERACTIONS), "The busiest 20% of users hold 38% of the interactions"),
        (
            lambda: figures.forest(bars("HR@5", "abc", [0.1, -0.1, -0.3], [0.2, 0.1, -0.1])),
            "Llama4Rec against Base, HR@5: better for a, worse for c, a tie for b",
        ),
        (
            lambda: figures.forest(bars("HR@5", "abcd", [0.1, -0.1, -0.3, -0.1], [0.2, 0.1, -0.1, 0.1])),
            "Llama4Rec against Base, HR@5: better for 1, worse for 1, a tie for 2 of 4 backbones",
        ),
        (
            lambda: figures.forest(bars("HR@5", "ab", [0, -0.1], [0.1, 0])),
            "Llama4Rec against Base, HR@5: a tie for a and b",
        ),
        (
            lambda: figures.forest(bars("HR@5", "abc", [0.1] * 3, [0.2] * 3)),
            "Llama4Rec against Base, HR@5: better for a, b and c",
        ),
        (lambda: figures.forest(GAINS, "Nothing is missed"), "Nothing is missed"),
        (lambda: figures.orders(PLACES), "What came next moves from place 3 to 1"),
        (
            lambda: figures.forest(bars("RMSE", "a", 0.1, 0.2)),
            "Llama4Rec against Base, RMSE: worse for a",
        ),
        (
            lambda: figures.forest(GAINS),
            "Llama4Rec against Base, NDCG@5 and RMSE: better for LightGCN, a tie for DeepFM",
        ),
        (lambda: figures.weight_curve(USERS), "The LLM weighs 0.5 for the shortest histories, 0.1 for the longest"),
        (lambda: figures.weight_curve(USERS.assign(alpha=0.0)), "The LLM weighs 0 for every user"),
        (lambda: figures.training_curve(LOG), "Validation is best at epoch 2 of 3: NDCG@10 0.030"),
        (
            lambda: figures.training_curve(LOG.assign(**{"ndcg@10": np.nan})),
            "3 epochs take the training loss to 0.400",
        ),
        (
            lambda: figures.tuning_curve(pd.DataFrame({"step": [1, 2, 3, 4], "loss": [4.0, 2.0, 3.0, 1.0]}), steps=2),
            "4 steps of tuning take the loss from 3.00 to 2.00",
        ),
        (lambda: FIGURES["all_curves"](), "Validation is best after 2 epochs"),
        (lambda: figures.all_curves({"MF": [LOG, LOG.assign(epoch=[4, 5, 6])]}), "best after 2 to 5 epochs"),
        (
            lambda: figures.within_list(LISTS),
            "The tuned LLM orders the candidates best (0.340); the untuned LLM (0.300) is a tie",
        ),
        (
            lambda: figures.within_list(results(("letter", 0.4, 0.39, 0.41), ("backbone", 0.3, 0.2, 0.38))),
            "Letter orders the candidates best (0.400), ahead of the backbone (0.300)",
        ),
        (lambda: figures.within_list(results(("backbone", 0.3, 0.2, 0.38))), "best (0.300)"),
        (
            lambda: figures.within_list(
                results(
                    ("backbone", 0.3, 0.2, 0.38),
                    ("tuned", 0.35, 0.34, 0.36),
                    ("backbone, lists of untuned", 0.5, 0.49, 0.51),
                )  # of other lists than the others
            ),
            "The tuned LLM orders the candidates best (0.350); the backbone (0.300) is a tie",
        ),
        (
            lambda: figures.within_list(results(("random", 0.295, np.nan, np.nan), ("tuned", 0.3, 0.29, 0.31))),
            "No order is clearly better than random (0.295); the highest is the tuned LLM (0.300)",
        ),
        (
            lambda: figures.by_history_length(GROUPS.assign(ci_low=0), "HR@5"),
            "HR@5: no row leads among tail users and users with long histories",
        ),
        (
            lambda: figures.by_history_length(
                SHARP.assign(ci_low=SHARP["ci_low"].where(SHARP["group"] == "tail", 0)), "HR@5"
            ),
            "HR@5: Llama4Rec leads among tail users; no row leads among users with long histories",
        ),
        (
            lambda: figures.by_history_length(SHARP[SHARP["group"] == "tail"], "HR@5"),
            "HR@5: Llama4Rec leads among tail users",
        ),
        (
            lambda: figures.by_history_length(SHARP[SHARP["group"] == "long"], "RMSE"),
            "RMSE: Base leads among users with long histories",
        ),
    ],
)
def test_the_title_says_the_finding(draw, title):
    assert " ".join(draw().get_suptitle().split()).endswith(title)


def test_alternative_text_is_title_labels_and_note():
    fig = figures.alpha_heatmap(NATS, (0.5, 0.9))
    assert figures.alternative_text(fig) == (
        "Validation gives the LLM a weight of 0.5 at most (+34.0 nats). "
        "x: alpha_1: weight of the LLM at most (0: backbone alone), y: alpha_2: cut-off. "
        "y: log-likelihood gained (nats), validation. "
        "framed: chosen, alpha_1 = 0.5, alpha_2 = 0.9 (+34.0 nats), the best of the grid."
    )
    panels = figures.alternative_text(figures.by_history_length(GROUPS, "HR@5"))
    assert "40 users with long histories N(u) above the median" in " ".join(panels.split())


def test_a_shown_figure_carries_its_alternative_text():
    fig = figures.long_tail(INTERACTIONS)
    data, metadata = figures.shown(fig)._repr_mimebundle_()
    assert set(data) == {"image/png"} and metadata["image/png"]["alt"] == figures.alternative_text(fig)
    assert figures.shown(fig).data.startswith(b"\x89PNG")
