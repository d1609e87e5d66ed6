"""What is published gives the rows again: lists and ratings by hand, any lists, and notebook 06 on what came back."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest
import replay
from hypothesis import given
from hypothesis import strategies as st
from standins import PRESET, SEED, notebook, open_run
from test_walk import given_lists, given_ratings

from llama4rec_core.backbones.predict import Predictions, read_predictions
from llama4rec_core.files import read_json, write_frame, write_json
from llama4rec_core.published import NO_ITEM, pack_lists, pack_ratings, unpack_lists, unpack_ratings

CASES = pd.DataFrame(
    {"case": [4, 5, 6], "part": "valid", "user": [0, 0, 1], "item": [7, 8, 9], "rating": 3.0, "prefix": [2, 2, 5]}
)
NONE = np.zeros((0, 0), np.float32)


def test_lists_by_hand():
    """Two cases of user 0 share a list. 1, 2, 3 are -1.2247, 0 and 1.2247 standard deviations from their mean."""
    items = np.array([[7, 3, 4], [7, 3, 4], [1, 2, 9]])
    predictions = Predictions(CASES, items, np.array([[3, 2, 1]] * 3, np.float32), None, NONE)
    said = pd.DataFrame({"key": "valid-0-2", "item": [3, 4, 7], "utility": [20.0, 30.0, 10.0]})
    none = said.head(0)
    frame = pack_lists(predictions, {"LLM": said, "other": none}, {"valid-0-2"})
    assert frame["key"].tolist() == ["valid-0-2"] * 3 and frame["item"].tolist() == [7, 3, 4]
    assert frame["backbone"].tolist() == [1225, 0, -1225] and frame["LLM"].tolist() == [-1225, 0, 1225]
    assert frame["other"].isna().all()

    again, told = unpack_lists(frame, CASES)
    assert again.items.tolist() == [[7, 3, 4], [7, 3, 4], [NO_ITEM] * 3]
    assert again.scores[0].tolist() == pytest.approx([1.225, 0, -1.225]) and again.cases is CASES
    assert told["LLM"].to_dict("list") == {"key": ["valid-0-2"] * 3, "item": [7, 3, 4], "utility": [-1.225, 0, 1.225]}
    assert told["other"].empty


def test_ratings_by_hand_and_no_rating_of_a_user_is_in_them():
    asked = CASES[["part", "user", "item", "rating"]].iloc[[2, 0]].assign(backbone=[4.5, 1.25], expected=[2.0004, 3.0])
    frame = pack_ratings(CASES, {"LLM": asked, "few": asked.head(1)}, "expected")
    assert frame["case"].tolist() == [4, 6] and frame["backbone"].tolist() == [1250, 4500]
    assert frame["LLM"].tolist() == [3000, 2000] and frame["few"].isna().tolist() == [True, False]
    assert list(frame) == ["case", "backbone", "LLM", "few"]
    predictions, told = unpack_ratings(frame, CASES, "expected")
    assert told["few"].to_dict("list") == {
        "part": ["valid"], "user": [1], "item": [9], "rating": [3.0], "backbone": [4.5], "expected": [2.0],
    }  # fmt: skip
    assert told["LLM"]["user"].tolist() == [0, 1] and predictions.ratings[[0, 2]].tolist() == [1.25, 4.5]


def test_ratings_of_a_wide_scale_come_back():
    asked = CASES[["part", "user", "item", "rating"]].assign(
        backbone=[75.0, -1000.5, 0.0], expected=[60.0, 100.0, 33.0]
    )
    predictions, told = unpack_ratings(pack_ratings(CASES, {"LLM": asked}, "expected"), CASES, "expected")
    assert predictions.ratings.tolist() == [75.0, -1000.5, 0.0] and told["LLM"]["expected"].tolist() == [
        60.0,
        100.0,
        33.0,
    ]


def test_a_part_with_many_lines_is_several_files_that_come_back_in_order(monkeypatch):
    monkeypatch.setattr(replay, "LINES", 2)
    cases = pd.DataFrame({"case": range(6), "part": ["valid"] + ["test"] * 5})
    files = dict(replay.of_parts(pd.DataFrame({"case": range(6)}), cases, "MF-base"))
    assert list(files) == ["MF-base-valid.parquet", *(f"MF-base-test{n}.parquet" for n in ("", "-2", "-3"))]
    others = {"MF-base-test.parquet.bak": 0, "MF-baseline-test.parquet": 0}
    parts = replay.parts_of("MF-base", files | others)
    assert pd.concat([files[name] for name in parts])["case"].tolist() == list(range(6))


@given(st.lists(st.lists(st.integers(-500, 500), min_size=4, max_size=4, unique=True), min_size=1, max_size=6))
def test_any_lists_come_back_in_the_same_order(values):
    """Of four numbers at least 1 apart and at most 1,000, no two come within a thousandth of a standard deviation."""
    utility, n = np.array(values, dtype=float), len(values)
    cases = pd.DataFrame({"case": range(n), "part": "test", "user": range(n), "item": 0, "rating": 1.0, "prefix": 3})
    items = np.tile([5, 6, 7, 8], (n, 1))
    keys = [f"test-{user}-3" for user in range(n)]
    said = pd.DataFrame({"key": np.repeat(keys, 4), "item": items.ravel(), "utility": utility.ravel()})
    predictions = Predictions(cases, items, -np.sort(-utility).astype(np.float32), None, NONE)
    again, told = unpack_lists(pack_lists(predictions, {"LLM": said}, set(keys)), cases)
    assert (again.items == items).all() and (np.diff(again.scores) < 0).all()
    back = told["LLM"]["utility"].to_numpy().reshape(-1, 4)
    assert (back.argsort() == utility.argsort()).all()


@pytest.fixture
def finished(results, tmp_path, monkeypatch):
    """A run of a direct and a rating backbone whose lists and opinions are all there, and what notebook 06 made."""
    run, ready = open_run(tmp_path, PRESET.replace("[LightGCN, SASRec, DeepFM]", "[LightGCN, DeepFM]"))
    run = dataclasses.replace(run, preset=dataclasses.replace(run.preset, seeds=(SEED,)))
    given_lists(run, ready, {"valid": 0, "test": 3})
    given_ratings(run, ("valid",))
    given = read_predictions(run.path(f"backbones/DeepFM-s{SEED}/base")).cases.set_index(["user", "item"])["rating"]
    for file in run.path("scores").glob("DeepFM-*.parquet"):  # the stand-ins' ratings are 2; the data say otherwise
        frame = pd.read_parquet(file)
        rating = given.loc[pd.MultiIndex.from_frame(frame[["user", "item"]])].to_numpy()
        write_frame(file, frame.assign(rating=rating))
    write_json(run.path(f"scores/LightGCN-base-EASE-s{SEED}.json"), {"tokens_read": 0})
    replay.pack(run, tmp_path / "published")
    return dataclasses.replace(run, preset=dataclasses.replace(run.preset, published=str(tmp_path / "published")))


@pytest.mark.parametrize("backbone", ["LightGCN", "DeepFM"])
def test_rows_of_what_was_published_are_the_rows_of_the_run(finished, tmp_path, monkeypatch, backbone):
    def measured():
        shutil.rmtree(finished.path("rows"), ignore_errors=True)
        notebook("06", monkeypatch, preset=str(tmp_path / "small.yaml"), backbone=backbone, seed=SEED)
        folder = finished.path(f"rows/{backbone}-s{SEED}")
        return pd.read_parquet(folder / "per_user.parquet"), read_json(folder / "choice.json")["rows"]

    before, chosen = measured()
    for made in ("backbones", "scores"):
        shutil.rmtree(finished.path(made))
    replay.unpack(finished)
    after, again = measured()
    pd.testing.assert_frame_equal(before, after)
    assert finished.record() == read_json(tmp_path / "published" / f"s{SEED}" / "record.json")["run"]
    assert finished.has(f"scores/LightGCN-base-EASE-s{SEED}.json")
    for row, values in chosen.items():
        assert again[row] == pytest.approx(values, abs=0.002)


def test_what_was_changed_since_or_is_of_another_run_is_refused_and_all_is_said_at_once(finished, tmp_path):
    of = tmp_path / "published" / f"s{SEED}"
    (of / "DeepFM-base-valid.parquet").unlink()
    (of / "LightGCN-base-test.parquet").write_bytes(b"other")
    record = read_json(of / "record.json")
    made = record["run"] | {"preset": record["run"]["preset"] | {"row_tokens": 7}}
    write_json(of / "record.json", record | {"split_sha256": "", "run": made})
    with pytest.raises(ValueError) as error:
        replay.unpack(finished)
    said = str(error.value)
    assert "other data or another split" in said and "row_tokens was 7, the preset now says 1024" in said
    assert "DeepFM-base-valid.parquet is missing" in said
    assert "LightGCN-base-test.parquet is missing or not as" in said
