"""An exported LLM is plain: transformers alone gives the same scores, and the card says what it is."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
import yaml
from tiny import answer_log_p, saved, tiny
from transformers import AutoModelForCausalLM, AutoTokenizer

from llama4rec_core import presets
from llama4rec_core.__main__ import main
from llama4rec_core.files import write_frame, write_json
from llama4rec_core.llm import model
from llama4rec_core.llm.export import export
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.run import Run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LLAMA4REC_RESULTS", str(tmp_path / "results"))
    base = saved(tmp_path / "base")
    (tmp_path / "mine.yaml").write_text(f"llm: {base}\n", encoding="utf-8")
    run = Run.open(tmp_path / "mine.yaml")
    tuned = run.path("llm/with_hints-s3")
    tiny(seed=1).model.save_pretrained(tuned)
    write_json(tuned / "tuning.json", {"llm": {"name": "tiny", "sha256": "f00d"}, "tokens": 1234, "steps": 5})
    write_json(run.path("data/split.json"), {"dataset": "small", "protocol": "rolling", "data_sha256": "d4ta"})
    within = pd.DataFrame(
        [("LLM'' (augmented)", 0.25, 0.2, 0.3, 9)], columns=["name", "value", "ci_low", "ci_high", "n"]
    )
    write_frame(run.path("rows/LightGCN-s3/within.csv"), within)
    return run


def test_transformers_alone_gives_the_same_scores(run, tmp_path, capsys):
    folder = tmp_path / "exported"
    assert main(["export", run.asked, "with_hints", "3", str(folder)]) == 0 and str(folder) in capsys.readouterr().out
    bare = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = model.load(run.preset.llm, run.path("llm/with_hints-s3"), dtype=torch.float32)
    prefix, answer = tokenizer("Films: heat").input_ids, tokenizer("fargo").input_ids
    assert tuple(prefix) == ours.encode("Films: heat")
    given = score_row(ours, [Prompt("a", tuple(prefix), (Branch(tuple(answer), len(answer)),))])[0][0][0]
    expected = answer_log_p(replace(ours, model=bare), prefix, answer)
    assert given == pytest.approx(expected, abs=1e-4)
    other = answer_log_p(tiny(), prefix, answer)  # the base model's are not these
    assert abs(given - other) > 0.01


def test_the_card_says_what_it_was_made_of(run, tmp_path):
    text = (export(run, "with_hints", 3, tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    front, body = text.split("---")[1], text.split("---", 2)[2]
    assert yaml.safe_load(front)["license"] == "other" and "base model's licence holds" in body
    for told in ("f00d", "d4ta", "1,234 tokens, 5 steps, seed 3", "LightGCN: 0.2500 [0.2000, 0.3000]", "rolling split"):
        assert told in body
    settings = yaml.safe_load(body.split("```yaml")[1].split("```")[0])
    assert presets.build({"name": "x", **settings}).tuning == run.preset.tuning


def test_what_was_not_tuned_or_would_be_written_over_is_refused(run, tmp_path, capsys):
    assert main(["export", run.asked, "trunk", "3", str(tmp_path / "out")]) == 1
    assert "has no tuned LLM 'trunk' of seed 3" in capsys.readouterr().out
    (tmp_path / "out").mkdir()
    assert main(["export", run.asked, "with_hints", "3", str(tmp_path / "out")]) == 1
    assert "is there already" in capsys.readouterr().out
