"""Tuning the LM head alone: the losses are those of all logits, only asked-for rows change, and it teaches."""

from types import SimpleNamespace

import pytest
import torch

from llama4rec_core.files import read_tensors, write_tensors
from llama4rec_core.llm import lm_head, model
from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.finetune import clean, pack, tune
from llama4rec_core.llm.loss import TOKEN, collate, tree_loss
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.presets import TuningSettings


def some_rows(count=6, width=4):
    torch.manual_seed(0)
    return [{"hidden": 5 * torch.randn(3, width) + torch.tensor([9.0, 0.0, -3.0, 1.0])} for _ in range(count)]


def test_at_first_nothing_has_changed():
    rows = torch.randn(5, 4)
    assert torch.equal(lm_head.LMHead(rows, some_rows()).weight(), rows)


def test_the_change_by_hand():
    """dW h = V ((h - m c) / s) / sqrt(D) + b c, c = m h / m m."""
    read = some_rows()
    learnt = lm_head.LMHead(torch.zeros(2, 4), read)
    with torch.no_grad():
        learnt.v.normal_()
        learnt.b.normal_()
    hidden = torch.cat([each["hidden"] for each in read])
    m = hidden.mean(0)
    c = hidden @ m / (m @ m)
    spread = (hidden - c[:, None] * m).square().mean(0).sqrt()
    expected = (hidden - c[:, None] * m) / spread @ learnt.v.T / 2 + c[:, None] * learnt.b  # sqrt(D) = 2
    assert torch.allclose(hidden @ learnt.weight().T, expected, atol=1e-4)


def examples(llm):
    titles = [llm.encode(title + "\n") for title in ("Alien", "Heat", "Fargo", "Toy Story")]
    prompts = [
        Prompt(str(n), llm.encode(f"Viewer {n}:\n"), tuple(Branch(t, len(t)) for t in titles)) for n in range(12)
    ]
    digits = llm.choices([" 1", " 2", " 3"])
    asked = Prompt("rating", llm.encode("Heat:"), (Branch(digits[0], choices=digits[1]),))
    rating = Example(asked, (ChoiceSet((0,), 1),))
    return [*(Example(prompt, (ChoiceSet((0, 1, 2, 3), 2),)) for prompt in prompts), rating]


@pytest.mark.llm
def test_the_losses_are_those_of_all_logits(llm):
    batch = collate([examples(llm)])
    tokens = torch.unique(batch["labels"][:, TOKEN].long())
    with torch.no_grad():
        logits = llm.model(**{k: v for k, v in batch.items() if k != "labels"}, use_cache=False).logits
    row = lm_head.read(llm, examples(llm), tokens)
    learnt = lm_head.LMHead(llm.model.get_output_embeddings().weight.detach()[tokens], [row])
    ours = learnt(row["hidden"], row["rest"])
    assert ours.logits.shape == (1, len(row["hidden"]), len(tokens) + 1)
    expected = tree_loss(SimpleNamespace(logits=logits), batch["labels"], temperature=2.0)
    assert tree_loss(ours, row["labels"], temperature=2.0).item() == pytest.approx(expected.item(), abs=1e-4)


@pytest.mark.llm
def test_it_teaches_and_what_is_scored_is_what_was_taught(llm, tmp_path):
    """After tuning for "Fargo" the engine gives it the highest likelihood, by the very rows that were saved; words that
    no example asks for keep theirs, and so does every input embedding."""
    taught, settings = examples(llm), TuningSettings(row_tokens=60, lm_head={"epochs": 8})
    before = [float(each[0]) for each in score_row(llm, [taught[0].prompt])[0]]
    folder = tune(llm, taught, settings, tmp_path / "plain", seed=0)
    tuned = model.load(model.SMOLLM2, folder)
    after = [float(each[0]) for each in score_row(tuned, [taught[0].prompt])[0]]
    assert before[2] < max(before) and after[2] == max(after)
    saved, old, new = read_tensors(folder / model.LM_HEAD_FILE), llm.model, tuned.model
    kept = torch.ones(len(old.get_output_embeddings().weight), dtype=torch.bool)
    kept[saved["tokens"]] = False
    assert torch.equal(new.get_output_embeddings().weight[kept], old.get_output_embeddings().weight[kept])
    assert torch.equal(new.get_output_embeddings().weight[~kept], saved["rows"])
    assert torch.equal(new.get_input_embeddings().weight, old.get_input_embeddings().weight)
    assert list(tmp_path.glob(".plain-*"))  # what was read is kept until the step has ended
    clean(folder)
    assert not list(tmp_path.glob(".plain-*"))


@pytest.mark.llm
def test_reading_goes_on_where_it_was(llm, tmp_path, monkeypatch):
    taught, settings = examples(llm), TuningSettings(row_tokens=60, lm_head={"epochs": 2})
    straight = read_tensors(tune(llm, taught, settings, tmp_path / "straight", seed=0) / model.LM_HEAD_FILE)
    asked, original = [], lm_head.read

    def read_two_then_die(*given):
        if len(asked) == 2:
            raise KeyboardInterrupt
        asked.append(given)
        return original(*given)

    monkeypatch.setattr(lm_head, "read", read_two_then_die)
    with pytest.raises(KeyboardInterrupt):
        tune(llm, taught, settings, tmp_path / "stopped", seed=0)
    again = []
    monkeypatch.setattr(lm_head, "read", lambda *given: again.append(given) or original(*given))
    stopped = read_tensors(tune(llm, taught, settings, tmp_path / "stopped", seed=0) / model.LM_HEAD_FILE)
    assert all(torch.equal(straight[name], stopped[name]) for name in straight)
    assert len(asked) == 2 and len(again) == len(pack(taught, settings.row_tokens, 0)) - 2


def test_rows_of_another_model_are_refused(tmp_path):
    other = SimpleNamespace(get_output_embeddings=lambda: torch.nn.Linear(3, 7, bias=False))
    for tokens, width in (([1, 7], 3), ([1, 2], 4)):
        write_tensors(
            tmp_path / model.LM_HEAD_FILE, {"tokens": torch.tensor(tokens), "rows": torch.zeros(len(tokens), width)}
        )
        with pytest.raises(ValueError, match=r"but the model's head is \[7, 3\]: it was tuned for another model"):
            model.put_rows(other, tmp_path / model.LM_HEAD_FILE)
