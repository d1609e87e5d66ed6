"""Rows, files, publication and the paper's own cells."""

import errno
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import evaluation, paper, tables

GROUP = ("ml-100k", "leave-one-out", "LightGCN")


def frame(method, hr, seed=1, group=GROUP, **settings):
    """Per-user rows of one method and seed with HR@3 as given, and NDCG@3 of half of it."""
    dataset, protocol, backbone = group
    columns = {"dataset": dataset, "protocol": protocol, "backbone": backbone, "method": method, "seed": seed}
    metrics = {"HR@3": np.array(hr, float), "NDCG@3": np.array(hr, float) / 2}
    return pd.DataFrame(columns | {"user": range(len(hr))} | settings | metrics)


def build(*frames, preset="quick", llm="tiny", **options):
    return tables.build(pd.concat(frames, ignore_index=True), preset=preset, llm=llm, draws=200, **options)


def row(table, **key):
    found = table[np.logical_and.reduce([table[column] == value for column, value in key.items()])]
    assert len(found) == 1
    return found.iloc[0]


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    hr = {name: (rng.random((2, 40)) < share) for name, share in (("Base", 0.2), ("IFT", 0.3), ("Llama4Rec", 0.5))}
    frames = [frame(name, hr[name][s], seed=s) for name in ("Base", "IFT") for s in (0, 1)]
    frames += [
        frame("Llama4Rec", hr["Llama4Rec"][s], seed=s, alpha_1=0.3 + 0.2 * s, alpha_2=0.1, mode="score", changed=s == 0)
        for s in (0, 1)
    ]
    return build(*frames, compared_with={GROUP: "IFT"})


# --- rows ------------------------------------------------------------------------------------------


def test_columns_are_the_protocols():
    assert tables.COLUMNS == (
        "preset, llm, dataset, protocol, backbone, method, metric, value, std, seeds, users, hits, ci_low, ci_high, "
        "compared_with, diff, diff_ci_low, diff_ci_high, p_seeds, p_users, alpha_1, alpha_2, mode, users_changed, "
        "paper_value"
    ).split(", ")


def test_a_row_by_hand():
    table = build(frame("Base", [1, 0, 0, 0], seed=1), frame("Base", [1, 1, 0, 1], seed=2))
    assert list(table.columns) == tables.COLUMNS and len(table) == 2
    found = row(table, metric="HR@3")
    assert (found.preset, found.llm, found.dataset, found.backbone) == ("quick", "tiny", "ml-100k", "LightGCN")
    assert (found.value, found.seeds, found.users, found.hits) == (0.5, 2, 4, 2.0)
    assert found["std"] == pytest.approx(np.std([0.25, 0.75], ddof=1))
    expected = evaluation.estimate([[1, 0, 0, 0], [1, 1, 0, 1]], draws=200)
    assert (found.ci_low, found.ci_high) == (expected.ci_low, expected.ci_high)
    assert found.paper_value == 0.0492 and pd.isna(found.compared_with) and pd.isna(found.p_users)


def test_one_seed_has_no_deviation_and_no_p_over_seeds():
    table = build(frame("Base", [1, 0, 0]), frame("Llama4Rec", [1, 1, 0]), compared_with={GROUP: "Base"})
    assert table["std"].isna().all() and table["p_seeds"].isna().all()


def test_other_seeds_are_not_paired():
    base = [frame("Base", [1, 0, 0], seed=s) for s in (1, 2)]
    for seeds, paired in (((1, 2), True), ((1, 3), False)):
        ours = [frame("Llama4Rec", [1, s > 1, 0], seed=s) for s in seeds]
        table = build(*base, *ours, compared_with={GROUP: "Base"})
        assert table["p_seeds"].notna().any() == paired and table["p_users"].notna().any()


def test_comparison_with_the_given_baseline(table):
    ours = row(table, method="Llama4Rec", metric="HR@3")
    base = row(table, method="IFT", metric="HR@3")
    assert ours.compared_with == "IFT" and ours["diff"] == pytest.approx(ours.value - base.value)
    assert ours.diff_ci_low <= ours["diff"] <= ours.diff_ci_high and 0 <= ours.p_seeds <= 1
    assert table.loc[table["method"] != "Llama4Rec", ["diff", "p_users", "p_seeds"]].isna().all().all()


def test_settings_and_changed_users_are_taken_along(table):
    ours = row(table, method="Llama4Rec", metric="HR@3")
    assert (ours.alpha_1, ours.alpha_2, ours["mode"], ours.users_changed) == ("0.3/0.5", "0.1", "score", 0.5)


def test_changed_users_are_a_share_of_the_users_asked_about():
    asked = frame("Llama4Rec", [1, 0, 0, 0, 1], changed=[1.0, 0.0, 0.0, np.nan, np.nan])
    table = build(frame("Base", [1, 0, 0, 0, 0], changed=np.nan), asked)
    assert row(table, method="Llama4Rec", metric="HR@3").users_changed == pytest.approx(1 / 3)
    assert np.isnan(row(table, method="Base", metric="HR@3").users_changed)  # the LLM was asked about nobody


def test_hits_count_users_not_cases():
    """Rolling: a user's HR is a share of ten cases. Users with any hit: 2 with one seed, 1 with the other."""
    table = build(frame("Base", [0.1, 0.9, 0, 0], seed=1), frame("Base", [0, 1.0, 0, 0], seed=2))
    assert table["hits"].tolist() == [1.5, 1.5] and row(table, metric="HR@3").value == pytest.approx(0.25)


def test_holm_runs_over_the_whole_table():
    ours, base = [1] * 6 + [0] * 4, [0] * 10
    group = (*GROUP[:2], "MF")
    one = build(frame("Base", base), frame("Llama4Rec", ours), compared_with={GROUP: "Base"})
    two = build(
        *(frame(m, hr, group=g) for g in (GROUP, group) for m, hr in (("Base", base), ("Llama4Rec", ours))),
        compared_with={GROUP: "Base", group: "Base"},
    )
    raw = 2 / 2**6
    assert one["p_users"].dropna().tolist() == [2 * raw] * 2
    assert two["p_users"].dropna().tolist() == [4 * raw] * 4


def test_squared_errors_become_rmse():
    errors = pd.DataFrame({"user": [0, 1], "MSE": [1.0, 0.0], "MAE": [1.0, 0.0]})
    key = dict(zip(tables.PER_USER[:5], ("ml-100k", "leave-one-out", "DeepFM", "Base", 1), strict=True))
    table = build(errors.assign(**key))
    assert table["metric"].tolist() == ["RMSE", "MAE"] and table["hits"].isna().all()
    assert table["value"].tolist() == pytest.approx([np.sqrt(0.5), 0.5])
    assert table["paper_value"].tolist() == [1.0487, 0.8082]


def test_a_difference_of_rmse_is_of_roots():
    """Squared errors 9 and 4 of every user, two seeds: RMSE 2.5 with deviation, against 1: 1.5 apart."""
    key = dict(zip(tables.PLACE, ("ml-100k", "rolling", "DeepFM"), strict=True))
    rows = [
        pd.DataFrame(key | {"method": method, "seed": seed, "user": range(3), "MSE": mse})
        for method, errors in (("Base", (1, 1)), ("Llama4Rec", (9, 4)))
        for seed, mse in enumerate(errors)
    ]
    table = build(*rows, compared_with={tuple(key.values()): "Base"})
    ours = row(table, method="Llama4Rec")
    assert (ours.metric, ours.value, ours["diff"], ours.diff_ci_low, ours.diff_ci_high) == ("RMSE", 2.5, 1.5, 1.5, 1.5)
    assert ours["std"] == pytest.approx(np.std([3, 2], ddof=1))


def test_the_paper_stands_beside_leave_one_out_only():
    table = build(frame("Base", [1, 0]), frame("Base", [1, 0], group=("ml-100k", "rolling", "LightGCN")))
    assert table["paper_value"].notna().tolist() == [True, True, False, False]


def test_intervals_take_the_given_draws_and_seed():
    rng = np.random.default_rng(0)
    base, ours = rng.random(30), rng.random(30)
    table = build(frame("Base", base), frame("Llama4Rec", ours), compared_with={GROUP: "Base"}, seed=5)
    found = row(table, method="Llama4Rec", metric="HR@3")
    expected = evaluation.compare(ours, base, draws=200, seed=5)
    assert (found["diff"], found.diff_ci_low, found.diff_ci_high) == (expected.diff, expected.ci_low, expected.ci_high)
    alone = evaluation.estimate(ours, draws=200, seed=5)
    assert (found.ci_low, found.ci_high) == (alone.ci_low, alone.ci_high)
    assert found.ci_low != evaluation.estimate(ours, draws=200, seed=0).ci_low


def test_rows_stand_in_the_papers_order_and_other_names_follow_by_alphabet():
    names = ["zeta", "DeepFM", "alpha", "MF", "lightgcn"]
    rows = pd.DataFrame({"backbone": names, "metric": "HR@3"}, index=[7, 3, 9, 1, 4])
    ordered = tables.in_order(rows)
    assert ordered["backbone"].tolist() == ["MF", "lightgcn", "DeepFM", "alpha", "zeta"]
    assert ordered.index.tolist() == [0, 1, 2, 3, 4]


def test_two_tasks_share_a_table():
    errors = pd.DataFrame({"user": [0, 1], "MSE": [1.0, 0.0], "MAE": [1.0, 0.0]})
    key = dict(zip(tables.PER_USER[:5], ("ml-100k", "leave-one-out", "DeepFM", "Base", 1), strict=True))
    table = build(frame("Base", [1, 0]), errors.assign(**key))
    assert list(zip(table["backbone"], table["metric"], strict=True)) == [
        ("LightGCN", "HR@3"), ("LightGCN", "NDCG@3"), ("DeepFM", "RMSE"), ("DeepFM", "MAE"),
    ]  # fmt: skip


PLACE = "ml-100k / leave-one-out / LightGCN"


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        (
            [frame("Base", [1, 0]).drop(columns="seed")],
            {},
            "the per-user frame lacks the column 'seed'; it needs dataset, protocol, backbone, method, seed, user",
        ),
        (
            [frame("Base", [1, 0]).rename(columns={"HR@3": "RMSE"})],
            {},
            "the per-user column RMSE should be MSE, mean squared errors: the root comes after averaging",
        ),
        (
            [frame("Base", [1, 0]), frame("IFT", [1])],
            {},
            f"{PLACE}: IFT, seed 1 lacks user 1; all rows need the same users",
        ),
        ([frame("Base", [1, 0]), frame("Base", [1, 0])], {}, f"{PLACE}: Base has user 0 twice for seed 1"),
        (
            [frame("Base", [1, 0], seed=3), frame("Base", [1, np.nan], seed=4)],
            {},
            f"{PLACE}: Base has no HR@3 for user 1 (seed number 2)",
        ),
        (
            [frame("Base", [1, 0])],
            {"compared_with": {GROUP: "IFT"}},
            f"{PLACE} should be compared with 'IFT', which has no rows",
        ),
        (
            [frame("Base", [1, 0])],
            {"compared_with": {("a", "b", "c"): "IFT"}},
            "compared_with names a / b / c, which has no rows",
        ),
    ],
)
def test_build_refuses(frames, options, message):
    with pytest.raises(ValueError) as error:
        build(*frames, **options)
    assert str(error.value) == message


def test_our_own_rows_are_possible(table):
    assert paper.impossible_cells(table).empty


# --- files -----------------------------------------------------------------------------------------


def test_files_have_the_same_bytes_whatever_the_order_of_rows(table, tmp_path):
    tables.write(table, tmp_path / "a.csv", "One caption.")
    tables.write(table.sample(frac=1, random_state=0), tmp_path / "b.csv", "One\n caption.")
    for suffix in ("csv", "md"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.md", "b.csv", "b.md"]  # nothing aside


def test_a_read_table_writes_the_same_bytes(table, tmp_path):
    tables.write(table, tmp_path / "a.csv", "c")
    tables.write(tables.read(tmp_path / "a.csv"), tmp_path / "b.csv", "c")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes()


def test_csv_cells_have_fixed_decimals(tmp_path):
    table = build(frame("Base", [1, 0, 0])).assign(ci_low=-1e-9, std=np.nan)
    tables.write(table, tmp_path / "t.csv", "c")
    header, hr, ndcg = (tmp_path / "t.csv").read_text().splitlines()
    assert header == ",".join(tables.COLUMNS)
    assert hr.startswith("quick,tiny,ml-100k,leave-one-out,LightGCN,Base,HR@3,0.333333,,1,3,1.0,0.000000,")
    assert hr.endswith(",,,,,,,,,,,0.0492") and ndcg.split(",")[6:8] == ["NDCG@3", "0.166667"]


def test_markdown_by_hand():
    table = build(frame("Base", [1, 0]), frame("w/o AA", [1, 0])).assign(ci_low=0.0, ci_high=1.0)
    table["paper_value"] = np.where(table["method"] == "Base", 0.1, np.nan)
    assert tables.markdown(table[table["metric"] == "HR@3"], "What it shows.") == (
        "What it shows.\n\n"
        "## ml-100k, leave-one-out: preset quick, LLM tiny\n\n"
        "2 users, seeds: 1. Each cell: mean over seeds [95% interval over users], for HR also users hit / users.\n\n"
        "| backbone | metric  | Base                        | w/o AA                      |\n"
        "| -------- | ------- | --------------------------- | --------------------------- |\n"
        "| LightGCN | HR@3    | 0.5000 [0.0000, 1.0000] 1/2 | 0.5000 [0.0000, 1.0000] 1/2 |\n"
        "|          | *paper* | 0.1000                      |                             |\n"
    )


def test_markdown_compares_with_the_baseline(table):
    text = tables.markdown(table, "c")
    assert "Holm-corrected" in text and "| LightGCN | Llama4Rec | IFT     | HR@3 " in text and "50%" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1 and len({len(line) for line in lines[:4]}) == 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace("users_changed", "changed"), "the fault is 'changed'"),
        (lambda text: text + text.splitlines()[1] + "\n", "line 8: this key already stands"),
        (lambda text: text.replace("0.500000", "half", 1), "column value: could not convert"),
    ],
)
def test_a_spoilt_csv_is_refused(table, tmp_path, spoil, message):
    table.loc[0, "value"] = 0.5
    tables.write(table, tmp_path / "t.csv", "c")
    (tmp_path / "t.csv").write_text(spoil((tmp_path / "t.csv").read_text()))
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        tables.read(tmp_path / "t.csv")


def test_write_refuses_two_rows_for_a_key_and_leaves_the_old_file(table, tmp_path):
    tables.write(table, tmp_path / "t.csv", "c")
    before = (tmp_path / "t.csv").read_bytes()
    with pytest.raises(ValueError, match="two rows for quick / tiny / ml-100k"):
        tables.write(pd.concat([table, table]), tmp_path / "t.csv", "c")
    with pytest.raises(ValueError, match="lacks the column 'users'"):
        tables.write(table.drop(columns="users"), tmp_path / "t.csv", "c")
    assert (tmp_path / "t.csv").read_bytes() == before


def test_a_failed_write_leaves_the_old_file_and_nothing_aside(table, tmp_path, monkeypatch):
    tables.write(table, tmp_path / "t.csv", "c")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="disk is full"):
        tables.write(table.assign(value=0.5), tmp_path / "t.csv", "c")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- publication -----------------------------------------------------------------------------------


def publish(tmp_path, table, caption="c", name="table_2"):
    run = tmp_path / "run"
    for old in run.glob("*"):
        old.unlink()
    tables.write(table, run / f"{name}.csv", caption)
    return tables.publish(run, tmp_path / "committed")


def test_publishing_twice_changes_nothing(table, tmp_path):
    assert set(publish(tmp_path, table)["action"]) == {"added"}
    for suffix in ("csv", "md"):
        run, committed = (tmp_path / folder / f"table_2.{suffix}" for folder in ("run", "committed"))
        assert run.read_bytes() == committed.read_bytes()
    before = (tmp_path / "committed" / "table_2.csv").read_bytes()
    assert set(publish(tmp_path, table)["action"]) == {"unchanged"}
    assert (tmp_path / "committed" / "table_2.csv").read_bytes() == before


def test_a_newcomers_quick_run_never_touches_a_five_seed_row(tmp_path):
    five = build(*(frame("Base", [1, 1, 0, s % 2], seed=s) for s in range(5)), preset="laptop")
    publish(tmp_path, five)
    report = publish(tmp_path, build(frame("Base", [0, 0, 0, 0])))
    assert set(report["action"]) == {"added"}
    committed = tables.read(tmp_path / "committed" / "table_2.csv")
    assert list(zip(committed["preset"], committed["seeds"], strict=True)) == [("quick", 1)] * 2 + [("laptop", 5)] * 2
    kept = committed[committed["preset"] == "laptop"]["value"].tolist()
    assert kept == five["value"].tolist()


def test_the_same_preset_replaces_its_rows_and_keeps_the_others(tmp_path):
    two_methods = build(*(frame(m, [1, 0, 0, 0], seed=s) for m in ("Base", "IFT") for s in (1, 2)))
    publish(tmp_path, two_methods)
    report = publish(tmp_path, build(frame("Base", [1, 1, 1, 0])), caption="A newer caption.")
    assert report[["method", "metric", "action", "seeds_before", "seeds_after"]].to_numpy().tolist() == [
        ["Base", "HR@3", "replaced", "2", "1"], ["Base", "NDCG@3", "replaced", "2", "1"],
    ]  # fmt: skip
    committed = tables.read(tmp_path / "committed" / "table_2.csv")
    assert row(committed, method="Base", metric="HR@3").value == 0.75
    assert row(committed, method="IFT", metric="HR@3").value == 0.25
    twin = (tmp_path / "committed" / "table_2.md").read_text()
    assert twin.startswith("A newer caption.\n\n## ml-100k") and "0.7500" in twin and "0.2500" in twin


def test_captions_can_be_given(table, tmp_path):
    tables.write(table, tmp_path / "run" / "t.csv", "the run's")
    tables.publish(tmp_path / "run", tmp_path / "committed", captions={"t": "ours"})
    assert (tmp_path / "committed" / "t.md").read_text().startswith("ours\n")


def test_a_spoilt_table_stops_publication_before_anything_is_written(table, tmp_path):
    tables.write(table, tmp_path / "run" / "a.csv", "c")
    (tmp_path / "run" / "b.csv").write_text("nothing,of,the,kind\n")
    with pytest.raises(ValueError, match="b.csv: the columns of a table are"):
        tables.publish(tmp_path / "run", tmp_path / "committed")
    assert not (tmp_path / "committed").exists()
    with pytest.raises(ValueError, match="holds no table to publish"):
        tables.publish(tmp_path / "committed", tmp_path / "elsewhere")


def test_tables_figures_and_metrics_do_without_torch():
    modules = "aggregation", "evaluation", "figures", "paper", "tables"
    code = f"import sys; from llama4rec_core import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
