"""Rows, files, publication and the paper's own cells."""

import errno
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import evaluation, paper, paths, presets, tables

GROUP = ("ml-100k", "leave-one-out", "LightGCN")


def frame(name, hr, seed=1, group=GROUP, cases=1, **settings):
    """Per-user lines of one row and seed with HR@3 as given, and NDCG@3 of half of it."""
    dataset, protocol, backbone = group
    columns = {"dataset": dataset, "protocol": protocol, "backbone": backbone, "row": name, "seed": seed}
    columns["cases"] = cases
    metrics = {"HR@3": np.array(hr, float), "NDCG@3": np.array(hr, float) / 2}
    return pd.DataFrame(columns | {"user": range(len(hr))} | settings | metrics)


def preset(name="quick", **settings):
    return presets.build({"name": name, "llm": "tiny", "evaluation": {"draws": 200}} | settings)


def build(*frames, name="quick", **options):
    return tables.build(pd.concat(frames, ignore_index=True), preset(name), **options)


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
    return build(*frames)


# --- rows ------------------------------------------------------------------------------------------


def test_columns_are_the_protocols():
    assert tables.COLUMNS == (
        "preset, commit, llm, tuning, dataset, protocol, backbone, row, metric, value, std, seeds, users, cases, hits, "
        "ci_low, ci_high, compared_with, diff, diff_ci_low, diff_ci_high, gain, p_seeds, p_users, mde, alpha_1, "
        "alpha_2, candidates, mode, users_changed, paper_value"
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
    assert (found.commit, found.candidates, found.tuning) == (paths.commit(), 20, "")


def test_one_seed_has_no_deviation_and_no_p_over_seeds():
    table = build(frame("Base", [1, 0, 0]), frame("Llama4Rec", [1, 1, 0]))
    assert table["std"].isna().all() and table["p_seeds"].isna().all()


def test_other_seeds_are_not_paired():
    base = [frame("Base", [1, 0, 0], seed=s) for s in (1, 2)]
    for seeds, paired in (((1, 2), True), ((1, 3), False)):
        ours = [frame("Llama4Rec", [1, s > 1, 0], seed=s) for s in seeds]
        table = build(*base, *ours)
        assert table["p_seeds"].notna().any() == paired and table["p_users"].notna().any()


def test_every_row_but_base_is_compared_with_base(table):
    """diff, interval and mde as of `compare`; gain is the difference divided by Base's value."""
    base = row(table, row="Base", metric="HR@3")
    assert pd.isna(base[["compared_with", "diff", "gain", "mde", "p_users", "p_seeds"]]).all()
    for name in ("IFT", "Llama4Rec"):
        ours = row(table, row=name, metric="HR@3")
        assert ours.compared_with == "Base" and ours["diff"] == pytest.approx(ours.value - base.value)
        assert ours.gain == pytest.approx(ours.value / base.value - 1)
        assert ours.diff_ci_low <= ours["diff"] <= ours.diff_ci_high and 0 <= ours.p_seeds <= 1
        assert ours.mde > 0


def test_the_gain_of_a_base_of_zero_is_unknown():
    table = build(frame("Base", [0, 0]), frame("IFT", [1, 0]))
    found = row(table, row="IFT", metric="HR@3")
    assert found["diff"] == 0.5 and np.isnan(found.gain)


def test_tuning_is_that_of_the_rows_that_an_llm_has_a_part_in():
    rows = ["Base", "IFT", "Llama4Rec", "Base + EASE"]
    table = build(*(frame(name, [1, 0]) for name in rows))
    said = table.drop_duplicates("row").set_index("row")["tuning"]
    learnt = "all parameters"
    assert said.to_dict() == {"Base": "", "IFT": learnt, "Llama4Rec": learnt, "Base + EASE": ""}
    assert (table["llm"] == "tiny").all()
    alone = build(frame("Base", [1, 0]), llm=False)
    assert (alone["llm"] == "").all() and (alone["tuning"] == "").all()


def test_an_llm_of_a_folder_is_named_without_the_way_there(tmp_path):
    found = tables.build(frame("Base", [1, 0]), preset(llm=str(tmp_path / "my-llm")))
    assert set(found["llm"]) == {"my-llm"}


def test_cases_are_all_of_them_and_equal_in_all_rows():
    table = build(frame("Base", [0.5, 0.2], cases=[10, 5]), frame("IFT", [0.5, 0.2], cases=[10, 5]))
    assert table["cases"].tolist() == [15] * 4
    with pytest.raises(ValueError, match="rows differ in the cases of user 1; compared rows need the same cases"):
        build(frame("Base", [0.5, 0.2], cases=[10, 5]), frame("IFT", [0.5, 0.2], cases=[10, 4]))


def test_settings_and_changed_users_are_taken_along(table):
    ours = row(table, row="Llama4Rec", metric="HR@3")
    assert (ours.alpha_1, ours.alpha_2, ours["mode"], ours.users_changed) == ("0.3/0.5", "0.1", "score", 0.5)


def test_changed_users_are_a_share_of_the_users_asked_about():
    asked = frame("Llama4Rec", [1, 0, 0, 0, 1], changed=[1.0, 0.0, 0.0, np.nan, np.nan])
    table = build(frame("Base", [1, 0, 0, 0, 0], changed=np.nan), asked)
    assert row(table, row="Llama4Rec", metric="HR@3").users_changed == pytest.approx(1 / 3)
    assert np.isnan(row(table, row="Base", metric="HR@3").users_changed)  # the LLM was asked about nobody


def test_hits_count_users_not_cases():
    """Rolling: a user's HR is a share of ten cases. Users with any hit: 2 with one seed, 1 with the other."""
    table = build(frame("Base", [0.1, 0.9, 0, 0], seed=1), frame("Base", [0, 1.0, 0, 0], seed=2))
    assert table["hits"].tolist() == [1.5, 1.5] and row(table, metric="HR@3").value == pytest.approx(0.25)


def test_holm_runs_over_the_backbones_of_a_row_and_metric():
    ours, base = [1] * 6 + [0] * 4, [0] * 10
    group = (*GROUP[:2], "MF")
    one = build(frame("Base", base), frame("Llama4Rec", ours))
    two = build(
        *(frame(m, hr, group=g) for g in (GROUP, group) for m, hr in (("Base", base), ("Llama4Rec", ours))),
    )
    raw = 2 / 2**6
    assert one["p_users"].dropna().tolist() == [raw] * 2
    assert two["p_users"].dropna().tolist() == [2 * raw] * 4
    another = build(*(frame(m, hr) for m, hr in (("Base", base), ("Llama4Rec", ours), ("Base + EASE", ours))))
    assert another["p_users"].dropna().tolist() == [raw] * 4  # a control takes nothing from the row it stands beside


def test_squared_errors_become_rmse():
    errors = pd.DataFrame({"user": [0, 1], "MSE": [1.0, 0.0], "MAE": [1.0, 0.0]})
    key = dict(zip(tables.PER_USER[:5], ("ml-100k", "leave-one-out", "DeepFM", "Base", 1), strict=True))
    table = build(errors.assign(**key, cases=1))
    assert table["metric"].tolist() == ["RMSE", "MAE"] and table["hits"].isna().all()
    assert table["value"].tolist() == pytest.approx([np.sqrt(0.5), 0.5])
    assert table["paper_value"].tolist() == [1.0487, 0.8082]


def test_a_difference_of_rmse_is_of_roots():
    """Squared errors 9 and 4 of every user, two seeds: RMSE 2.5 with deviation, against 1: 1.5 apart."""
    key = dict(zip(tables.PLACE, ("ml-100k", "rolling", "DeepFM"), strict=True))
    rows = [
        pd.DataFrame(key | {"row": method, "seed": seed, "user": range(3), "cases": 1, "MSE": mse})
        for method, errors in (("Base", (1, 1)), ("Llama4Rec", (9, 4)))
        for seed, mse in enumerate(errors)
    ]
    table = build(*rows)
    ours = row(table, row="Llama4Rec")
    assert (ours.metric, ours.value, ours["diff"], ours.diff_ci_low, ours.diff_ci_high) == ("RMSE", 2.5, 1.5, 1.5, 1.5)
    assert ours.gain == 1.5 and np.isnan(ours.candidates)
    assert ours["std"] == pytest.approx(np.std([3, 2], ddof=1))


def test_the_paper_stands_beside_leave_one_out_only():
    table = build(frame("Base", [1, 0]), frame("Base", [1, 0], group=("ml-100k", "rolling", "LightGCN")))
    assert table["paper_value"].notna().tolist() == [False, False, True, True]


def test_intervals_take_the_preset_s_draws():
    rng = np.random.default_rng(0)
    base, ours = rng.random(30), rng.random(30)
    table = build(frame("Base", base), frame("Llama4Rec", ours))
    found = row(table, row="Llama4Rec", metric="HR@3")
    expected = evaluation.compare(ours, base, draws=200)
    assert (found["diff"], found.diff_ci_low, found.diff_ci_high) == (expected.diff, expected.ci_low, expected.ci_high)
    alone = evaluation.estimate(ours, draws=200)
    assert (found.ci_low, found.ci_high) == (alone.ci_low, alone.ci_high)
    assert found.ci_low != evaluation.estimate(ours).ci_low


def test_rows_stand_in_the_papers_order_and_other_names_follow_by_alphabet():
    names = ["zeta", "DeepFM", "alpha", "MF", "lightgcn"]
    rows = pd.DataFrame({"backbone": names, "metric": "HR@3"}, index=[7, 3, 9, 1, 4])
    ordered = tables.in_order(rows)
    assert ordered["backbone"].tolist() == ["MF", "lightgcn", "DeepFM", "alpha", "zeta"]
    assert ordered.index.tolist() == [0, 1, 2, 3, 4]


def test_two_tasks_share_a_table():
    errors = pd.DataFrame({"user": [0, 1], "MSE": [1.0, 0.0], "MAE": [1.0, 0.0]})
    key = dict(zip(tables.PER_USER[:5], ("ml-100k", "leave-one-out", "DeepFM", "Base", 1), strict=True))
    table = build(frame("Base", [1, 0]), errors.assign(**key, cases=1))
    assert list(zip(table["backbone"], table["metric"], strict=True)) == [
        ("LightGCN", "HR@3"), ("LightGCN", "NDCG@3"), ("DeepFM", "RMSE"), ("DeepFM", "MAE"),
    ]  # fmt: skip


PLACE = "ml-100k / leave-one-out / LightGCN"


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (
            [frame("Base", [1, 0]).drop(columns="seed")],
            "the per-user frame lacks the column 'seed'; it needs dataset, protocol, backbone, row, seed, user, cases",
        ),
        (
            [frame("Base", [1, 0]).rename(columns={"HR@3": "RMSE"})],
            "the per-user column RMSE should be MSE, mean squared errors: the root comes after averaging",
        ),
        (
            [frame("Base", [1, 0]), frame("IFT", [1])],
            f"{PLACE}: IFT, seed 1 lacks user 1; all rows need the same users",
        ),
        ([frame("Base", [1, 0]), frame("Base", [1, 0])], f"{PLACE}: Base has user 0 twice for seed 1"),
        (
            [frame("Base", [1, 0], seed=3), frame("Base", [1, np.nan], seed=4)],
            f"{PLACE}: Base has no HR@3 for user 1 (seed number 2)",
        ),
        ([frame("IFT", [1, 0])], f"{PLACE} has no row Base, with which every other row is compared"),
    ],
)
def test_build_refuses(frames, message):
    with pytest.raises(ValueError) as error:
        build(*frames)
    assert str(error.value) == message


def test_our_own_rows_are_possible(table):
    assert paper.impossible_cells(table).empty


# --- pairs -----------------------------------------------------------------------------------------


def test_a_pair_by_hand():
    """Llama4Rec hits 3 of 4 users, item-kNN 2: +0.25, half as much again; two users have other hits."""
    frames = frame("Base", [0, 0, 0, 0]), frame("Llama4Rec", [1, 1, 1, 0]), frame("Base + item-kNN", [1, 1, 0, 0])
    pairs = [("Llama4Rec", "Base + item-kNN")]
    found = tables.compare_rows(pd.concat(frames), pairs, preset())
    assert list(found.columns) == tables.PAIR_COLUMNS and found["metric"].tolist() == ["HR@3", "NDCG@3"]
    hr = row(found, metric="HR@3")
    assert (hr.row, hr.compared_with, hr["diff"], hr.gain, hr.users, hr.cases) == (*pairs[0], 0.25, 0.5, 4, 4)
    expected = evaluation.compare([1, 1, 1, 0], [1, 1, 0, 0], draws=200)
    assert (hr.diff_ci_low, hr.diff_ci_high, hr.mde) == (expected.ci_low, expected.ci_high, expected.mde)
    assert hr.p_users == 1  # one user decides: a coin's two sides


def test_pairs_are_corrected_over_backbones_and_made_where_both_rows_are():
    ours, theirs = [1] * 6 + [0] * 4, [0] * 10
    errors = pd.DataFrame({"user": range(2), "MSE": [4.0, 4.0], "seed": 1, "cases": 1})
    errors = errors.assign(dataset="ml-100k", protocol="leave-one-out", backbone="DeepFM")
    frames = [
        frame("Llama4Rec", ours), frame("w/o AA", theirs), frame("w/o DA", theirs),
        errors.assign(row="Llama4Rec"), errors.assign(row="w/o AA", MSE=1.0),
    ]  # fmt: skip
    found = tables.compare_rows(pd.concat(frames), [("Llama4Rec", "w/o DA"), ("Llama4Rec", "w/o AA")], preset())
    assert found[["backbone", "compared_with", "metric"]].to_numpy().tolist() == [
        ["LightGCN", "w/o DA", "HR@3"], ["LightGCN", "w/o DA", "NDCG@3"],
        ["LightGCN", "w/o AA", "HR@3"], ["LightGCN", "w/o AA", "NDCG@3"], ["DeepFM", "w/o AA", "RMSE"],
    ]  # fmt: skip
    assert found["p_users"].tolist()[:4] == [2 / 2**6] * 4  # each pair and metric has one backbone
    assert (found["diff"].iloc[-1], found["gain"].iloc[-1]) == (1, 1)  # of roots: 2 - 1
    with pytest.raises(ValueError, match="no backbone has both rows of the pair 'Llama4Rec', 'w/o XX'"):
        tables.compare_rows(pd.concat(frames), [("Llama4Rec", "w/o XX")], preset())


def test_llama4rec_is_paired_with_all_but_base_and_ift():
    rows = ["Base", "IFT", "Llama4Rec", "w/o AA", "Base + EASE", "w/o AA"]
    assert tables.pairs_of(rows) == [("Llama4Rec", "w/o AA"), ("Llama4Rec", "Base + EASE")]
    assert tables.pairs_of(["Base", "Llama4Rec"]) == []
    empty = tables.compare_rows(pd.concat([frame("Base", [1, 0]), frame("Llama4Rec", [1, 0])]), [], preset())
    assert list(empty.columns) == tables.PAIR_COLUMNS and empty.empty


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
    table = build(frame("Base", [1, 0, 0])).assign(ci_low=-1e-9, std=np.nan, commit="abc")
    tables.write(table, tmp_path / "t.csv", "c")
    header, hr, ndcg = (tmp_path / "t.csv").read_text().splitlines()
    assert header == ",".join(tables.COLUMNS)
    assert hr.startswith("quick,abc,tiny,,ml-100k,leave-one-out,LightGCN,Base,HR@3,0.333333,,1,3,3,1.0,0.000000,")
    assert hr.endswith(",,,,,,,,,,,20,,,0.0492") and ndcg.split(",")[8:10] == ["NDCG@3", "0.166667"]


def test_markdown_by_hand():
    table = build(frame("Base", [1, 0])).assign(ci_low=0.0, ci_high=1.0)
    more = table.assign(row="w/o AA", paper_value=np.nan)
    table = pd.concat([table.assign(paper_value=0.1), more])
    assert tables.markdown(table[table["metric"] == "HR@3"], "What it shows.") == (
        "What it shows.\n\n"
        "## ml-100k, leave-one-out: preset quick, LLM tiny\n\n"
        "2 users, 2 cases, seeds: 1. Values are means over seeds with 95% intervals over users. Gains are paired "
        "differences, divided by the value of the row compared with.\n\n"
        "| backbone | metric  | Base                    | w/o AA                  |\n"
        "| -------- | ------- | ----------------------- | ----------------------- |\n"
        "| LightGCN | HR@3    | 0.5000 [0.0000, 1.0000] | 0.5000 [0.0000, 1.0000] |\n"
        "|          | *paper* | 0.1000                  |                         |\n"
    )


def test_markdown_says_gains_over_base(table):
    text = tables.markdown(table, "c")
    assert "Holm-corrected" in text and "| LightGCN | Llama4Rec | Base    | HR@3 " in text and "50.0%" in text
    ours = row(table, row="Llama4Rec", metric="HR@3")
    assert f"| +{100 * ours.gain:.1f}% [" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines[:4]}) == 1 and len({len(line) for line in lines[:4]}) == 1


def test_five_rows_stand_one_below_the_other_with_the_main_metric_first():
    hits = {"Base": [1, 0, 0, 0], "IFT": [0, 0, 0, 0], "Llama4Rec": [1, 1, 0, 0], "w/o DA": [1, 0, 0, 0]}
    frames = [
        frame(name, hr).rename(columns={"HR@3": "NDCG@5", "NDCG@3": "HR@3"})
        for name, hr in (hits | {"Base + EASE": [1, 1, 1, 0]}).items()
    ]
    text = tables.markdown(build(*frames), "c")
    assert text.index("### LightGCN") < text.index("| row         | NDCG@5 [95% interval]") < text.index("HR@3 (gain)")
    first = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert first[2:7] == ["Base", "IFT", "Llama4Rec", "w/o DA", "Base + EASE"] == first[9:]
    (ours,) = [line for line in text.splitlines() if line.startswith("| Llama4Rec") and "[" in line]
    cells = [cell.strip() for cell in ours.split("|")[1:-1]]
    assert cells[1].startswith("0.5000 [") and cells[2].startswith("+100.0% [") and cells[3] == "1.000"
    assert "0.2500 (+100.0%)" in text


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


def test_write_refuses_two_lines_for_a_key_and_leaves_the_old_file(table, tmp_path):
    tables.write(table, tmp_path / "t.csv", "c")
    before = (tmp_path / "t.csv").read_bytes()
    with pytest.raises(ValueError, match="two lines for quick / tiny / ml-100k"):
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


def publish(tmp_path, table, caption="c", name="table_2", pairs=None):
    run = tmp_path / "run"
    for old in run.glob("*"):
        old.unlink()
    tables.write(table, run / f"{name}.csv", caption)
    (run / "cost.csv").write_text("what,seconds\n", encoding="utf-8")  # stays with the run
    if pairs is not None:
        tables.write(pairs, run / "pairs.csv")
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
    five = build(*(frame("Base", [1, 1, 0, s % 2], seed=s) for s in range(5)), name="laptop")
    publish(tmp_path, five)
    report = publish(tmp_path, build(frame("Base", [0, 0, 0, 0])))
    assert set(report["action"]) == {"added"}
    committed = tables.read(tmp_path / "committed" / "table_2.csv")
    assert list(zip(committed["preset"], committed["seeds"], strict=True)) == [("quick", 1)] * 2 + [("laptop", 5)] * 2
    kept = committed[committed["preset"] == "laptop"]["value"].tolist()
    assert kept == five["value"].tolist()


def test_the_same_preset_replaces_its_rows_and_leaves_no_older_one_beside_them(tmp_path):
    two_rows = build(*(frame(m, [1, 0, 0, 0], seed=s) for m in ("Base", "IFT") for s in (1, 2)))
    publish(tmp_path, two_rows)
    report = publish(tmp_path, build(frame("Base", [1, 1, 1, 0])), caption="A newer caption.")
    assert report[["row", "metric", "action"]].to_numpy().tolist() == [
        ["Base", "HR@3", "replaced"], ["Base", "NDCG@3", "replaced"],
    ]  # fmt: skip
    committed = tables.read(tmp_path / "committed" / "table_2.csv")
    assert row(committed, row="Base", metric="HR@3").value == 0.75
    assert set(committed["row"]) == {"Base"}  # an IFT of the older run was compared with the older Base
    twin = (tmp_path / "committed" / "table_2.md").read_text()
    assert twin.startswith("A newer caption.\n\n## ml-100k") and "0.7500" in twin and "IFT" not in twin


def test_a_backbones_pairs_replace_its_older_ones_of_the_same_preset(tmp_path):
    frames = [frame(name, hr) for name, hr in (("Base", [0, 0]), ("Llama4Rec", [1, 0]), ("w/o AA", [0, 1]))]
    table, both = build(*frames), pd.concat(frames)

    def of(name, other):
        return tables.compare_rows(both, [("Llama4Rec", other)], preset(name))

    publish(tmp_path, table, pairs=of("quick", "w/o AA"))
    path = tmp_path / "committed" / "pairs.csv"
    assert path.read_bytes() == (tmp_path / "run" / "pairs.csv").read_bytes()
    publish(tmp_path, table, pairs=of("laptop", "Base"))
    publish(tmp_path, table, pairs=of("quick", "Base").assign(gain=9.0))
    publish(tmp_path, table)
    found = pd.read_csv(path)
    assert found[["preset", "compared_with", "metric"]].to_numpy().tolist() == [
        ["quick", "Base", "HR@3"], ["quick", "Base", "NDCG@3"], ["laptop", "Base", "HR@3"], ["laptop", "Base", "NDCG@3"]
    ]  # fmt: skip
    assert found["gain"].tolist()[:2] == [9, 9]  # the first run's "w/o AA" was compared with an older Llama4Rec


def of_backbones(metric, *gains):
    """Base and Llama4Rec of backbones of one task; a gain is Llama4Rec's over a Base of 1, alike for all users."""
    names = {"NDCG@5": ("MF", "LightGCN"), "MSE": ("DeepFM", "NFM")}[metric]
    frames = []
    for name, gain in zip(names, gains, strict=False):
        for row, value in (("Base", 1.0), ("Llama4Rec", 1 + gain)):
            one = pd.DataFrame({"user": range(30), "row": row, "seed": 0, "cases": 1, "backbone": name})
            frames.append(one.assign(**{metric: value**2 if metric == "MSE" else value}))
    return pd.concat(frames).assign(dataset="ml-100k", protocol="rolling")


def test_mean_gains_are_means_over_a_tasks_backbones_beside_the_papers():
    """+30% and -10%: +10% on average. All 30 users agree, so both are beyond chance. A smaller RMSE is a better one."""
    direct, rating = of_backbones("NDCG@5", 0.3, -0.1), of_backbones("MSE", -0.2, -0.2)
    both = [tables.build(each, preset()) for each in (direct, rating)]
    found = tables.mean_gains(pd.concat([direct, rating]), pd.concat(both), preset()).set_index("metric")
    assert found.index.tolist() == ["NDCG@5", "RMSE"]
    ndcg, rmse = found.loc["NDCG@5"], found.loc["RMSE"]
    about = ["task", "row", "backbones", "seeds", "users"]
    assert ndcg[about].tolist() == ["direct", "Llama4Rec", 2, 1, 30]
    assert ndcg[["gain", "ci_low", "ci_high"]].tolist() == pytest.approx([0.1] * 3)
    assert (ndcg["better"], ndcg["worse"]) == (1, 1) and (rmse["better"], rmse["worse"]) == (2, 0)
    of_paper = [608 / 447 - 1, 588 / 420 - 1]
    assert rmse["gain"] == pytest.approx(-0.2) and ndcg["paper_gain"] == pytest.approx(np.mean(of_paper))


def test_mean_gains_without_a_base_are_refused():
    direct = of_backbones("NDCG@5", 0.3, -0.1)
    with pytest.raises(ValueError, match="ml-100k / rolling / MF has no row Base"):
        tables.mean_gains(direct[direct["row"] != "Base"], tables.build(direct, preset()), preset())


def test_gains_come_back_from_their_file_and_are_merged_by_their_key(tmp_path):
    direct = of_backbones("NDCG@5", 0.3, -0.1)
    table = tables.build(direct, preset())
    for folder, name in (("run", "quick"), ("run", "laptop")):
        (tmp_path / folder).mkdir(exist_ok=True)
        tables.write(table.assign(preset=name), tmp_path / folder / "table_2.csv", "c")
        tables.write(tables.mean_gains(direct, table, preset(name)), tmp_path / folder / "gains.csv")
        tables.publish(tmp_path / folder, tmp_path / "committed")
    found = tables.read(tmp_path / "committed" / "gains.csv")
    assert found["preset"].tolist() == ["quick", "laptop"] and found["gain"].tolist() == pytest.approx([0.1, 0.1])


def test_a_spoilt_table_stops_publication_before_anything_is_written(table, tmp_path):
    tables.write(table, tmp_path / "run" / "table_a.csv", "c")
    (tmp_path / "run" / "table_b.csv").write_text("nothing,of,the,kind\n")
    with pytest.raises(ValueError, match="table_b.csv: the columns of a table are"):
        tables.publish(tmp_path / "run", tmp_path / "committed")
    assert not (tmp_path / "committed").exists()
    with pytest.raises(ValueError, match="holds no table to publish"):
        tables.publish(tmp_path / "committed", tmp_path / "elsewhere")


def test_tables_figures_and_metrics_do_without_torch():
    modules = "aggregation", "evaluation", "figures", "paper", "tables"
    code = f"import sys; from llama4rec_core import {', '.join(modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
