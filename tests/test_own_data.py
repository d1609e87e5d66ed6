"""A reader's own ratings and words through the whole walk, under the rolling protocol, with the real LLM."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import presets, rows, stages

PRESET = """
data:
  name: own
  interactions: plays.csv
  items: songs.csv
  protocol: rolling
  words: {items: songs, user: listener, chose: played, chooses: plays, attributes: {{ATTRIBUTES}}}
backbones: [LightGCN, SASRec, DeepFM]
prompts: {candidates: 5, history: 5, rated_history: 5, similar: 3}
instructions: {tokens: 1500, window: 3, next: 10, pairs: 5}
tuning: {rows_per_step: 1, row_tokens: 256}
augmentation: {users: 4, pairs: 1, sampled: 4, items_per_batch: 30}
evaluation: {rating_users: 5, choosing_users: 3, draws: 200}
backbone_settings: {LightGCN: {epochs: 3}, SASRec: {epochs: 2}, DeepFM: {epochs: 2}}
"""


def write(folder, attributes: str):
    rng = np.random.default_rng(0)
    plays = [
        (f"u{u}", f"s{i}", rng.integers(1, 6), t) for u in range(20) for t, i in enumerate(rng.permutation(30)[:24])
    ]
    pd.DataFrame(plays, columns=["user", "item", "rating", "time"]).to_csv(folder / "plays.csv", index=False)
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


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.parametrize(
    "attributes", ["[]", "[[year, from the year]], examples: [[Bohemian Rhapsody, '', '1975'], [One, '', '1991']]"]
)
def test_own_data_walks_through_the_whole_house(tmp_path, results, attributes):
    run = stages.Run.open(write(tmp_path, attributes))
    ready = stages.prepare(run)
    assert (ready.split.protocol, len(ready.split.test), len(ready.split.valid)) == ("rolling", 200, 100)
    for name in run.preset.backbones:
        found = rows.outcome(run, name, 0).per_user
        assert found.groupby("method")["user"].nunique().to_dict() == (
            {"Base": 5, "IFT": 5, "Llama4Rec": 5} if name == "DeepFM" else {"Base": 20, "IFT": 20, "Llama4Rec": 20}
        )
        column = "MSE" if name == "DeepFM" else "NDCG@5"
        assert np.isfinite(found[column]).all()
    assert set(rows.build_tables(run)) == set(rows.TABLES.values())
    prompt = stages.lessons(run, stages.llm_of(run, None, 0), "plain", 0)[0].prompt
    assert "listener" in stages.llm_of(run, None, 0).decode(prompt.prefix)
