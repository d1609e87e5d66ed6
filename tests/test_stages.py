"""A run that is killed goes on: the same command ends with the same files, and little is asked twice. Preset smoke,
the real LLM."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import rows, stages
from llama4rec_core.files import write_frame
from llama4rec_core.llm import recording
from llama4rec_core.llm.engine import Branch, Prompt

PART = """
import dataclasses
from llama4rec_core import stages
run = stages.Run.open("smoke")
run = dataclasses.replace(run, preset=dataclasses.replace(run.preset, row_tokens=64))  # short rows, so several batches
{}
"""


def command(code, results):
    env = os.environ | {"LLAMA4REC_RESULTS": str(results), "OMP_NUM_THREADS": str(os.cpu_count())}
    return subprocess.Popen(
        [sys.executable, "-c", PART.format(code)], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def kill_when(process, there):
    """SIGKILL as soon as `there()` holds."""
    deadline = time.monotonic() + 400
    while not there():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < deadline, "never came to the point of the kill"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()


def finish(code, results):
    process = command(code, results)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == 0, said


@pytest.mark.slow
@pytest.mark.llm
@pytest.mark.data
def test_a_kill_in_tuning_and_in_scoring_changes_nothing(tmp_path):
    """Scoring is killed after its second batch of six, tuning after its second checkpoint; what the tuned LLM says in
    the end (P1) shows that its weights are the same."""
    scoring, tuning, asking = (
        "stages.title_prior(run, False)",
        'stages.adapter(run, "plain", 0)',
        "stages.pairs(run, 0)",
    )
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    finish(f"{scoring}; {tuning}; {asking}", straight)

    llm = stopped / "runs" / "smoke" / "llm"
    parts = llm / ".prior-raw-parts"
    kill_when(command(scoring, stopped), lambda: len(list(parts.glob("*.parquet"))) >= 2)
    batch = max(int(line.split()[0]) for line in (parts / "sent.txt").read_text().splitlines())
    assert not (llm / "prior.parquet").exists()
    finish(scoring, stopped)

    checkpoints = llm / ".plain-s0-checkpoints"
    done = lambda: len([p for p in checkpoints.glob("checkpoint-*") if (p / "trainer_state.json").exists()]) >= 2  # noqa: E731
    kill_when(command(tuning, stopped), done)
    assert not (llm / "plain-s0").exists()
    finish(f"{tuning}; {asking}", stopped)

    for name in ("llm/prior-raw", "augmentation/pairs-s0-scores"):
        found = [folder / "runs" / "smoke" / name for folder in (straight, stopped)]
        one, two = (pd.read_parquet(path.with_suffix(".parquet")) for path in found)
        pd.testing.assert_frame_equal(one, two)
        cost = [json.loads(path.with_suffix(".json").read_text()) for path in found]
        assert cost[0]["prompts_sent"] == cost[0]["prompts"] <= cost[1]["prompts_sent"] <= cost[0]["prompts"] + batch


def test_batches_that_are_done_are_not_done_again(tmp_path):
    """The bookkeeping alone: five requests in three batches, a failure in the second."""
    path, calls = tmp_path / "answers.parquet", []

    def work(fail_at):
        def do(batch):
            calls.append(list(batch))
            if len(calls) == fail_at:
                raise KeyboardInterrupt
            return pd.DataFrame({"request": list(batch), "tokens_written": 2})

        return do

    batches = [[3, 1], [0, 4], [2]]
    with pytest.raises(KeyboardInterrupt):
        recording.in_batches(path, "test", batches, [10] * 5, work(2))
    assert not path.exists()
    found = recording.in_batches(path, "test", batches, [10] * 5, work(0))
    assert calls == [[3, 1], [0, 4], [0, 4], [2]] and found["request"].tolist() == [3, 1, 0, 4, 2]
    cost = recording.cost(path)
    assert (cost["prompts"], cost["prompts_sent"], cost["tokens_read"]) == (5, 7, 70)
    assert (cost["tokens_written"], cost["logits"]) == (10, 10) and cost["seconds"] >= 0
    recording.in_batches(path, "test", batches, [10] * 5, work(0))
    assert len(calls) == 4


def test_logits_are_counted_where_they_are_computed():
    """Prefix of 3; titles of 2 and 1 tokens share the place before them; an answer after a question has its own; a
    choice has none."""
    branches = (Branch((4, 5), 2), Branch((6,), 1), Branch((7, 8, 9), 2), Branch((1,), choices=(2, 3)))
    assert recording.logits_of(Prompt("p", (1, 2, 3), branches)) == 1 + 1 + 0 + 2


def predictions(items, scores, targets, part="test"):
    n = len(targets)
    cases = pd.DataFrame(
        {"case": range(n), "part": part, "user": range(n), "item": targets, "rating": 5.0, "prefix": 3}
    )
    return stages.Predictions(cases, np.array(items), np.array(scores, dtype=np.float32), None, np.arange(n))


def test_lists_without_their_target_rank_nothing_and_weight_0_is_the_backbone():
    known = predictions([[7, 8, 9], [1, 2, 3]], [[3, 2, 1], [3, 2, 1]], [9, 5])
    scores = pd.DataFrame({"key": "test-0-3", "item": [7, 8, 9], "utility": [0.0, 1.0, 2.0]})
    utility, asked = rows._utilities(known, scores)
    assert utility.tolist() == [[0, 1, 2]] and asked.tolist() == [True, False]
    assert rows._rank(known, utility, asked, 0.0, "score").tolist() == [3, 0]
    assert rows._rank(known, utility, asked, 1.0, "score").tolist() == [1, 0]
    assert rows._rank(known, utility, asked, np.array([0.0, 1.0]), "paper").tolist() == [3, 0]


def test_the_llm_alone_is_judged_by_user_within_lists_that_hold_their_target():
    """User 0: its target first and, in another list, second; user 1: third; user 2's list does not hold it."""
    cases = pd.DataFrame({"part": "valid", "user": [0, 0, 1, 2], "item": [5, 6, 7, 9], "prefix": [3, 4, 3, 3]})
    items, scores = np.array([[5, 6, 7]] * 4), np.array([[3.0, 2.0, 1.0]] * 4)
    known = stages.Predictions(cases, items, scores, None, np.zeros(3, dtype=np.int64))
    utility = {"valid-0-3": (2, 1, 0), "valid-0-4": (2, 1, 0), "valid-1-3": (0.5, 0.4, 0.3)}
    said = pd.DataFrame([(key, i, u) for key, us in utility.items() for i, u in zip((5, 6, 7), us, strict=True)])
    said.columns = ["key", "item", "utility"]
    by_user = rows.ndcg_alone((known, said))
    assert by_user.index.tolist() == [0, 1]
    assert by_user.tolist() == pytest.approx([(1 + 1 / np.log2(3)) / 2, 1 / np.log2(4)])
    run = SimpleNamespace(preset=SimpleNamespace(evaluation=SimpleNamespace(draws=50)))
    found = rows.alone(run, "LLM'", (known, said))
    assert found["value"] == pytest.approx(by_user.mean()) and found["lists"] == 3


def test_the_answer_files_can_be_read_back(tmp_path):
    frame = pd.DataFrame({"user": [1], "agreed": [True]})
    assert write_frame(tmp_path / "a.csv", frame) and pd.read_csv(tmp_path / "a.csv")["agreed"].dtype == bool


def test_an_unknown_backbone_is_one_sentence():
    with pytest.raises(ValueError, match="unknown backbone 'LightGNC': the known ones are"):
        stages.task_of("LightGNC")
