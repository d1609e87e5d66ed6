"""A reader's own ratings and words through the whole workflow, under the rolling protocol, with the real LLM."""

import os
import subprocess
import sys

import nbformat
import numpy as np
import pandas as pd
import pytest

from llama4rec_core import paths, presets
from llama4rec_core.files import read_json

PRESET = """
data:
  name: own
  interactions: plays.csv
  items: songs.csv
  protocol: rolling
  words: {items: songs, user: listener, chose: played, chooses: plays, attributes: {{ATTRIBUTES}}}
backbones: [LightGCN, SASRec, DeepFM]
prompts: {candidates: 5, history: 5, rated_history: 5, similar: 3}
instructions: {trunk: {tokens: 1500, history: 5}, tokens: 1500, window_users: 0.5}
tuning: {layers: 4, row_tokens: 256}
augmentation: {users: 4, pairs: 1, sampled: 4, items_per_batch: 30}
evaluation: {rating_users: 5, draws: 200}
backbone_settings: {LightGCN: {epochs: 3}, SASRec: {epochs: 2}, DeepFM: {epochs: 2}}
"""


def write(folder, attributes: str, ratings=range(1, 6)):
    """ratings: those there are; None: a file without."""
    rng, scale = np.random.default_rng(0), np.array(ratings or [1])
    plays = [
        (f"u{u}", f"s{i}", scale[rng.integers(len(scale))], t)
        for u in range(20)
        for t, i in enumerate(rng.permutation(30)[:24])
    ]
    frame = pd.DataFrame(plays, columns=["user", "item", "rating", "time"])
    (frame if ratings else frame.drop(columns="rating")).to_csv(folder / "plays.csv", index=False)
    songs = [(f"s{i}", f"Song Number {i}", "rock" if i % 2 else "jazz") for i in range(30)]
    pd.DataFrame(songs, columns=["item", "title", "genre"]).to_csv(folder / "songs.csv", index=False)
    (folder / "mine.yaml").write_text(PRESET.replace("{{ATTRIBUTES}}", attributes), encoding="utf-8")
    return folder / "mine.yaml"


def test_files_of_a_preset_are_looked_for_beside_it(tmp_path):
    preset = presets.load(write(tmp_path, "[[year, from the year]]"))
    assert preset.data.interactions == str(tmp_path / "plays.csv")
    assert preset.data.words.attributes == (("year", "from the year"),)
    assert preset.llm == "smollm2-135m-instruct"
    (tmp_path / "model").mkdir()
    (tmp_path / "b.yaml").write_text("llm: model\n")
    assert presets.load(tmp_path / "b.yaml").llm == str(tmp_path / "model")


def test_a_p3_example_must_have_every_attribute(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {words: {attributes: [[a, b]], examples: [[Song, '1999']]}}\n")
    with pytest.raises(
        ValueError, match="the P3 example 'Song' has 2 entries: it needs a title, a year and 1 attributes"
    ):
        presets.load(tmp_path / "a.yaml")


def run_workflow(preset) -> None:
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={preset}"]
    done = subprocess.run(
        command, cwd=paths.ROOT, env=os.environ | {"PYTHONPATH": str(paths.ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-6000:]


def printed(notebook) -> str:
    """All that the cells of an executed notebook printed."""
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(out.get("text", "") for cell in cells for out in cell.get("outputs", ()))


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.parametrize(
    "ratings", [range(1, 11), [n / 2 for n in range(1, 11)], [0, 7, 10, 50, 75, 99, 100], [1, 2, 3, np.nan], None],
    ids=["1 to 10", "half stars", "0 to 100", "some missing", "none"],
)  # fmt: skip
def test_ratings_of_any_scale_and_none_reach_the_tables(tmp_path, results, ratings):
    file = write(tmp_path, "[]", ratings)
    names = ["LightGCN", "DeepFM"] if ratings else ["LightGCN"]
    text = file.read_text(encoding="utf-8").replace("[LightGCN, SASRec, DeepFM]", f"[{', '.join(names)}]")
    file.write_text(text if ratings else f"{text}out_of_fold: {{rating: null}}\n", encoding="utf-8")
    run_workflow(file)
    run = results / "runs" / "mine"
    assert {path.stem for path in run.glob("tables/table_*.csv")} == {
        "table_2_direct", *(["table_4_rating"] if ratings else []),
    }  # fmt: skip
    if not ratings:
        assert not list(run.glob("backbones/DeepFM*")) and "Ratings" not in printed(
            run / "notebooks/05_prompt_augmentation_s0.ipynb"
        )
        return
    told = printed(run / "notebooks/05_prompt_augmentation_s0.ipynb")
    low, high = np.nanmin(ratings), np.nanmax(ratings)
    assert f"Ratings from {low:g} to {high:g} that this listener gave" in told and "nan" not in told
    said = pd.read_parquet(run / "scores/DeepFM-base-without_hints-s0.parquet")
    assert set(said["likeliest"]) <= {np.float32(rating) for rating in ratings}
    assert said["expected"].between(low, high).all() and said["expected"].nunique() > 5
    assert said["rating"].notna().all()


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.parametrize(
    "attributes", ["[]", "[[year, from the year]], examples: [[Bohemian Rhapsody, '', '1975'], [One, '', '1991']]"]
)
def test_own_data_go_through_the_whole_workflow(tmp_path, results, attributes):
    run_workflow(write(tmp_path, attributes))
    run = results / "runs" / "mine"
    split = read_json(run / "data/split.json")
    assert (split["protocol"], split["test"], split["valid"]) == ("rolling", 200, 100)
    for name in ("LightGCN", "SASRec", "DeepFM"):
        found = pd.read_parquet(run / f"rows/{name}-s0/per_user.parquet")
        assert set(found.groupby("row")["user"].nunique()) == {5 if name == "DeepFM" else 20}
        assert {"Base", "IFT", "Llama4Rec", "stack + LLM"} <= set(found["row"])
        assert np.isfinite(found["MSE" if name == "DeepFM" else "NDCG@5"]).all()
    assert {path.stem for path in run.glob("tables/table_*.csv")} == {
        "table_2_direct",
        "table_3_sequential",
        "table_4_rating",
    }
    for notebook in ("03_instruction_tuning_s0", "05_prompt_augmentation_s0"):
        prompt = printed(run / f"notebooks/{notebook}.ipynb")
        assert "listener" in prompt and "played" in prompt and "movie" not in prompt.lower()
    asked = pd.read_csv(run / "augmentation/attributes-s0.csv", keep_default_na=False)
    assert len(asked) == (0 if attributes == "[]" else 30)
