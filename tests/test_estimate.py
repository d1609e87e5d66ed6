"""What a run will take: every step is in it, as often as the run asks."""

import pytest
from test_own_data import write

from llama4rec_core import presets
from llama4rec_core.__main__ import main
from llama4rec_core.llm.estimate import estimate

TUNING = ["tuning the trunk", "tuning LLM'", "tuning LLM''"]
pytestmark = pytest.mark.llm


def estimated(tmp_path, more=""):
    file = write(tmp_path, "[[year, from the year]]")
    file.write_text(file.read_text(encoding="utf-8") + more, encoding="utf-8")
    return estimate(presets.load(file), tmp_path / "samples").set_index("step")


def test_an_estimate_has_every_step_as_often_as_the_run_asks(tmp_path):
    found = estimated(tmp_path, "seeds: [0, 1]\nrows: [Base, IFT, Llama4Rec, w/o PA]\n")
    asking = [f"asking about {task}, {llm}" for task in ("direct", "sequential", "rating")
              for llm in ("without_hints", "with_hints")]  # fmt: skip
    assert set(found.index) == {*TUNING, "pairs (P1)", "insertions (P2)", "attributes (P3)", *asking}
    assert (found["seconds"] >= 0).all() and (found.loc[TUNING, "seconds"] > 0).all()
    assert found.loc[TUNING, "count"].tolist() == [2 * 1500, 2 * 1500, 2 * round(1500 * (1 + (3 + 5) / 5))]
    assert found.loc[["pairs (P1)", "insertions (P2)", "attributes (P3)"], "count"].tolist() == [2 * 4, 2 * 4, 2 * 30]
    for task in ("direct", "sequential"):  # of two seeds; IFT and w/o PA ask LLM', Llama4Rec asks LLM''
        plain, hinted = (found.loc[f"asking about {task}, {llm}", "count"] for llm in ("without_hints", "with_hints"))
        assert plain == 2 * hinted and hinted % 2 == 0 and 0 < hinted / 2 < 20 * 15
    assert found.loc["asking about rating, without_hints", "count"] == 2 * 5  # once for all rows
    assert found.loc["asking about rating, with_hints", "count"] == 2 * 5


def test_what_is_not_tuned_is_not_counted_and_a_server_is_not_sampled(tmp_path, capsys):
    file = write(tmp_path, "[]")
    text = file.read_text(encoding="utf-8").replace("tuning: {layers: 4, row_tokens: 256}", "tuning: {method: none}")
    file.write_text(text.replace("[LightGCN, SASRec, DeepFM]", "[LightGCN]"), encoding="utf-8")
    found = estimate(presets.load(file), tmp_path / "samples").set_index("step")
    assert set(found.index) == {
        "pairs (P1)",
        *(f"asking about direct, {llm}" for llm in ("without_hints", "with_hints")),
    }
    file.write_text(text + "served: {url: 'http://localhost:1/v1', model: x, echo: true}\n", encoding="utf-8")
    assert main(["estimate", str(file)]) == 1 and "its server says" in capsys.readouterr().out
