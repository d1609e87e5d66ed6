"""Work in batches: what is done is not done again, another LLM's answers are thrown away, and a kill loses nothing."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from standins import Characters, score_row

from llama4rec_core.llm import batches
from llama4rec_core.llm.tree import Among, Branch, Prompt

BATCHES = [[3, 1], [0, 4], [2]]


class Work:
    """Answers each request with its number; stops at call `fail_at`."""

    def __init__(self, fail_at=0):
        self.calls, self.fail_at = [], fail_at

    def __call__(self, batch):
        self.calls.append(list(batch))
        if len(self.calls) == self.fail_at:
            raise KeyboardInterrupt
        return pd.DataFrame({"request": list(batch), "tokens_written": 2})

    def on(self, path, asked="questions"):
        return batches.in_batches(path, "test", BATCHES, [10, 20, 30, 40, 50], self, asked, "CPU", [1, 2, 3, 4, 5])


def test_batches_that_are_done_are_not_done_again(tmp_path):
    """Five requests in three batches, a failure in the second."""
    path, work = tmp_path / "answers.parquet", Work(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        work.on(path)
    assert not path.exists()
    found = work.on(path)
    assert work.calls == [[3, 1], [0, 4], [0, 4], [2]] and found["request"].tolist() == [3, 1, 0, 4, 2]
    cost = batches.cost(path)
    assert (cost["prompts"], cost["prompts_sent"], cost["tokens_read"]) == (5, 7, 60 + 60 + 60 + 30)
    assert (
        (cost["tokens_written"], cost["logits"], cost["batches"]) == (10, 10 + 15, 3)
        and cost["seconds"] >= 0
        and cost["machine"] == "CPU"
    )
    assert work.on(path)["request"].tolist() == [3, 1, 0, 4, 2] and len(work.calls) == 4
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == []


def test_answers_to_other_questions_are_thrown_away_whether_whole_or_in_parts(tmp_path):
    path, first = tmp_path / "answers.parquet", Work()
    first.on(path, "of one LLM")
    second = Work(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        second.on(path, "of another LLM")
    third = Work()
    third.on(path, "of a third LLM")
    assert third.calls == BATCHES and batches.cost(path)["asked"] == "of a third LLM"


def test_parts_of_unknown_questions_are_thrown_away(tmp_path):
    path, work = tmp_path / "answers.parquet", Work()
    parts = tmp_path / ".answers-parts"
    parts.mkdir()
    pd.DataFrame({"request": [9, 9]}).to_parquet(parts / "00000.parquet")
    assert work.on(path)["request"].tolist() == [3, 1, 0, 4, 2]


def test_a_kill_between_the_answers_and_their_cost_loses_nothing(tmp_path, monkeypatch):
    path, work, write_json = tmp_path / "answers.parquet", Work(), batches.write_json

    def killed(*content):
        raise KeyboardInterrupt

    monkeypatch.setattr(batches, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        work.on(path)
    assert path.exists() and not path.with_suffix(".json").exists()
    monkeypatch.setattr(batches, "write_json", write_json)
    assert work.on(path)["request"].tolist() == [3, 1, 0, 4, 2]
    assert work.calls == BATCHES  # nothing was asked twice
    assert batches.cost(path)["prompts_sent"] == 5


def test_a_record_without_answers_is_no_answer(tmp_path):
    path = tmp_path / "answers.parquet"
    path.with_suffix(".json").write_text(json.dumps({"asked": "questions"}))
    work = Work()
    assert len(work.on(path)) == 5 and work.calls == BATCHES


def test_a_fingerprint_is_of_the_llm_its_checkpoint_and_all_that_is_asked():
    llm, tuned, other = Characters(), Characters(checkpoint="tuned"), Characters()
    other.sha256 = "other"
    prompts = [Prompt("a", (1,), (Branch((2,), 1),))]
    later = [Prompt("a", (1,), (Branch((3,), 1),))]
    asked = [(llm, prompts, 5), (tuned, prompts, 5), (other, prompts, 5), (llm, later, 5), (llm, prompts, 6)]
    assert len({batches.fingerprint(*each) for each in asked}) == 5
    assert batches.fingerprint(llm, prompts, 5) == batches.fingerprint(Characters(), list(prompts), 5)
    formats = [SimpleNamespace(**vars(llm) | {"model": SimpleNamespace(dtype=dtype)}) for dtype in ("half", "whole")]
    assert len({batches.fingerprint(each, prompts) for each in formats}) == 2


def test_a_fingerprint_tells_the_sets_that_tokens_are_among_by_their_tokens():
    def asked(*tokens):
        return [Prompt("a", (1,), (Branch((2,), 1, among=(Among(tokens),)), Branch((), choices=Among(tokens))))]

    once, again, others = (batches.fingerprint(Characters(), asked(*tokens)) for tokens in ((2, 3), (2, 3), (2, 4)))
    assert once == again != others


def prompts_of(count):
    return [Prompt(f"k{n}", (n, 1), (Branch((2, n), 2), Branch((3,), choices=Among((4, 5))))) for n in range(count)]


def test_scores_are_kept_by_prompt_branch_and_choice_and_asked_for_anew_by_another_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "score_row", score_row)
    path, prompts = tmp_path / "scores.parquet", prompts_of(5)

    def taste(sign):
        return lambda prefix, text: sign * float(ord(text[-1]) + ord(prefix[0]))

    llm = Characters(taste(1))
    found = batches.score(llm, prompts, path, "test", row_tokens=12, rows_per_batch=1)
    assert found.columns.tolist() == ["key", "branch", "choice", "log_p"] and len(found) == 15
    no, yes = np.log(1 / (1 + np.e)), np.log(np.e / (1 + np.e))
    for n in range(5):
        rows = found[found["key"] == f"k{n}"].sort_values(["branch", "choice"])
        assert rows[["branch", "choice"]].to_numpy().tolist() == [[0, 0], [1, 0], [1, 1]]
        assert rows["log_p"].to_numpy() == pytest.approx([2 * n, no, yes])
    again = batches.score(llm, prompts, path, "test", 12, 1)
    assert len(llm.read) == 5 and again.equals(found)
    tuned = Characters(taste(-1), checkpoint="tuned")
    other = batches.score(tuned, prompts, path, "test", 12, 1)
    assert len(tuned.read) == 5 and other.loc[other["branch"] == 0, "log_p"].max() == 0
    assert batches.cost(path)["tokens_read"] == sum(len(prompt) for prompt in prompts)
    assert batches.cost(path)["logits"] == 5 * 2
    assert len(batches.score(tuned, [], tmp_path / "none.parquet", "test")) == 0


def test_texts_are_kept_by_prompt_and_asked_for_anew_by_another_checkpoint(tmp_path, monkeypatch):
    sent = []

    def generate(llm, prefix, tails, max_tokens, lines):
        sent.append((prefix, len(tails), max_tokens, lines))
        return [llm.checkpoint_sha256 + llm.decode(tail) for tail in tails]

    monkeypatch.setattr(batches, "generate", generate)
    prompts = [Prompt(key, tuple(map(ord, text)), ()) for key, text in (("a", "xyz"), ("b", "x"), ("c", "xy"))]
    path = tmp_path / "texts.parquet"
    found = batches.write(Characters(), prompts, path, "test", max_tokens=7, lines=2, per_batch=2)
    assert dict(zip(found["key"], found["text"], strict=True)) == {"a": "xyz", "b": "x", "c": "xy"}
    assert sent == [((), 2, 7, 2), ((), 1, 7, 2)]
    tuned = batches.write(Characters(checkpoint="T"), prompts, path, "test", max_tokens=7, lines=2, per_batch=2)
    assert sorted(tuned["text"]) == ["Tx", "Txy", "Txyz"] and len(sent) == 4
    assert batches.cost(path)["tokens_written"] == 9 and batches.cost(path)["tokens_read"] == 6
    assert len(batches.write(Characters(), [], tmp_path / "none.parquet", "test", 7, 2)) == 0


def test_a_batch_that_was_kept_but_not_timed_is_counted_all_the_same(tmp_path):
    """A kill between a batch's answers and the note of its seconds."""
    path, work = tmp_path / "answers.parquet", Work(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        work.on(path)
    (tmp_path / ".answers-parts" / "seconds.txt").unlink()
    work.on(path)
    cost = batches.cost(path)
    assert (cost["tokens_written"], cost["logits"], cost["prompts_sent"]) == (10, 10 + 15, 7)


def test_nothing_to_ask_costs_nothing(tmp_path):
    path = tmp_path / "answers.parquet"
    assert len(batches.in_batches(path, "test", [], [], Work(), "none", "CPU")) == 0
    cost = batches.cost(path)
    assert cost["prompts"] == cost["prompts_sent"] == cost["tokens_read"] == cost["tokens_written"] == 0
    assert cost["logits"] == cost["seconds"] == 0
    assert len(pd.read_parquet(path)) == 0


def test_logits_are_counted_where_they_are_computed():
    """Prefix of 3; titles of 2 and 1 tokens share the place before them; an answer after a question has its own; a
    choice and a title told apart have none."""
    few = Among((2, 3))
    branches = (Branch((4, 5), 2), Branch((6,), 1), Branch((7, 8, 9), 2), Branch((1,), choices=few))
    branches += (Branch((2, 3), 2, among=(few, few)),)
    assert batches.logits_of(Prompt("p", (1, 2, 3), branches)) == 1 + 1 + 0 + 2
    assert batches.logits_of(Prompt("p", (1, 2, 3), branches[3:])) == 0
