"""The losses by hand, and tuning that goes on after a kill."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llama4rec_core.files import read_tensors
from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.finetune import last_checkpoint, pack, tune
from llama4rec_core.llm.loss import LEARN, PLACE, PRIOR, RIGHT, TOKEN, TokenLogP, collate, tree_loss
from llama4rec_core.llm.tree import Branch, Prompt
from llama4rec_core.presets import TuningSettings


def example(prior=()):
    """Prefix 1 2 with 2 learnt; two titles, "3 4" (right) and "5"."""
    prompt = Prompt("p", (1, 2), (Branch((3, 4), 2), Branch((5,), 1)), learn=(1,))
    return Example(prompt, (ChoiceSet((0, 1), 0, prior),))


def test_targets_say_which_place_predicts_which_token():
    batch = collate([[example()]])
    table = batch["labels"]
    places = batch["logits_to_keep"][table[:, PLACE].long()]
    rows = list(zip(places.tolist(), table[:, TOKEN].long().tolist(), table[:, LEARN].bool().tolist(), strict=True))
    # the history's 2 after place 0; 3 after the prefix's end, 4 after 3 (place 2); 5 after the prefix's end, not learnt
    assert rows == [(0, 2, True), (1, 3, True), (2, 4, True), (1, 5, False)]
    assert table[:, RIGHT].tolist() == [0, 1, 1, 0]


def test_both_losses_by_hand():
    batch = collate([[example(prior=(-0.5, 0.25))]])
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 6)
    log_p = torch.log_softmax(logits[0], -1)
    history, right, wrong = log_p[0, 2], log_p[1, 3] + log_p[2, 4], log_p[1, 5]
    cross_entropy = -(history + right) / 3
    s_right, s_wrong = right + 0.5, wrong - 0.25
    choice = -(s_right - math.log(math.exp(s_right) + math.exp(s_wrong)))
    out = SimpleNamespace(logits=logits)
    assert tree_loss(out, batch["labels"], choice_weight=0.0).item() == pytest.approx(cross_entropy.item(), abs=1e-5)
    assert tree_loss(out, batch["labels"], choice_weight=2.0).item() == pytest.approx(
        (cross_entropy + 2 * choice).item(), abs=1e-5
    )
    assert batch["labels"][:, PRIOR].tolist() == [0.0, -0.5, 0.0, 0.25]
    softer = -(s_right / 4 - math.log(math.exp(s_right / 4) + math.exp(s_wrong / 4)))
    assert tree_loss(out, batch["labels"], temperature=4.0).item() == pytest.approx(
        (cross_entropy + 4 * softer).item(), abs=1e-5
    )


def test_token_log_probabilities_and_their_gradient_are_those_of_torch():
    torch.manual_seed(0)
    logits = (6 * torch.randn(5, 11)).double().requires_grad_()
    place, token = torch.tensor([0, 3, 3, 4, 3, 0]), torch.tensor([10, 2, 7, 0, 2, 1])  # (3, 2) twice, 1 and 2 never
    weight = torch.randn(6).double()
    ours = TokenLogP.apply(logits, place, token)
    (gradient,) = torch.autograd.grad((ours * weight).sum(), logits)
    expected = torch.log_softmax(logits, dim=-1)[place, token]
    (expected_gradient,) = torch.autograd.grad((expected * weight).sum(), logits)
    assert torch.allclose(ours, expected, atol=1e-12)
    assert torch.allclose(gradient, expected_gradient, atol=1e-12)
    assert gradient[1:3].abs().max() == 0 and gradient[3].abs().min() > 0


def test_a_rating_is_a_choice_among_the_scale():
    prompt = Prompt("r", (1, 2), (Branch((3,), choices=(7, 8, 9)),))
    batch = collate([[Example(prompt, (ChoiceSet((0,), 2),))]])
    logits = torch.randn(1, 1, 10)
    log_p = torch.log_softmax(logits[0, 0], -1)
    among = log_p[9] - torch.logsumexp(log_p[7:10], 0)
    assert batch["logits_to_keep"].tolist() == [2]
    for temperature in (1.0, 5.0):  # a digit is one token: the temperature of titles is not its own
        found = tree_loss(SimpleNamespace(logits=logits), batch["labels"], temperature=temperature)
        assert found.item() == pytest.approx((-log_p[9] - among).item(), abs=1e-5)


def test_a_title_and_a_digit_in_one_row_keep_their_own_temperatures():
    digit = Example(Prompt("r", (1, 2), (Branch((3,), choices=(7, 8)),)), (ChoiceSet((0,), 1),))
    batch = collate([[example(), digit]])
    logits = torch.randn(1, len(batch["logits_to_keep"]), 10)
    alone = [collate([[each]]) for each in (example(), digit)]
    losses = []
    for each, at in zip(alone, (slice(0, 3), slice(3, 4)), strict=True):
        out = SimpleNamespace(logits=logits[:, at])
        losses.append([tree_loss(out, each["labels"], choice_weight=w, temperature=6.0) for w in (0.0, 1.0)])
    expected = sum(both - plain for plain, both in losses) / 2
    found = [
        tree_loss(SimpleNamespace(logits=logits), batch["labels"], choice_weight=w, temperature=6.0) for w in (0.0, 1.0)
    ]
    assert (found[1] - found[0]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_two_choice_sets_count_alike():
    one = Example(Prompt("a", (1,), (Branch((2,), 1), Branch((3,), 1))), (ChoiceSet((0, 1), 0), ChoiceSet((0, 1), 1)))
    batch = collate([[one]])
    logits = torch.randn(1, 1, 5)
    log_p = torch.log_softmax(logits[0, 0], -1)
    both = torch.logsumexp(torch.stack([log_p[2], log_p[3]]), 0)
    choice = -((log_p[2] - both) + (log_p[3] - both)) / 2
    expected = -(log_p[2] + log_p[3]) / 2 + choice
    assert tree_loss(SimpleNamespace(logits=logits), batch["labels"]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_packing_is_seeded_complete_and_within_the_row():
    examples = [Example(Prompt(str(n), tuple(range(n)), ()), ()) for n in range(1, 12)]
    packed = pack(examples, row_tokens=15, seed=3)
    assert sorted(len(e.prompt) for row in packed for e in row) == list(range(1, 12))
    assert all(sum(len(e.prompt) for e in row) <= 15 for row in packed)
    assert [[e.prompt.key for e in row] for row in packed] == [
        [e.prompt.key for e in row] for row in pack(examples, 15, 3)
    ]


def test_a_checkpoint_cut_off_in_writing_is_not_used(tmp_path):
    for step, files in ((5, ["trainer_state.json"]), (10, ["trainer_state.json"]), (15, ["adapter_model.safetensors"])):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        for name in files:
            (folder / name).write_text("{}")
    assert last_checkpoint(tmp_path).endswith("checkpoint-10")
    assert last_checkpoint(tmp_path / "nothing") is None


@pytest.mark.llm
@pytest.mark.slow
@pytest.mark.parametrize("method", ["lm_head", "lora", "full"])
def test_tuning_teaches_and_a_stopped_one_ends_alike(tmp_path, method):
    """Three runs of six steps (of the LM head, three epochs): straight through; stopped after the second checkpoint;
    gone on from there."""
    from llama4rec_core.llm import model

    def taught(llm):
        titles = [llm.encode(title + "\n") for title in ("Alien", "Heat", "Fargo", "Toy Story")]
        prompts = [
            Prompt(str(n), llm.encode(f"Viewer {n}:\n"), tuple(Branch(t, len(t)) for t in titles)) for n in range(12)
        ]
        return [Example(prompt, (ChoiceSet((0, 1, 2, 3), 2),)) for prompt in prompts]

    rate, epochs = {"lm_head": (1e-2, 3), "lora": (1e-3, 1), "full": (2e-5, 1)}[method]
    own = {method: {"learning_rate": rate, "epochs": epochs}}
    settings = TuningSettings(method=method, row_tokens=60, save_steps=2, warmup_steps=1, **own)
    llm = model.load(model.SMOLLM2)
    straight = tune(llm, taught(llm), settings, tmp_path / "straight", seed=1)
    curve = np.loadtxt(straight / "curve.csv", delimiter=",", skiprows=1, ndmin=2)
    assert len(curve) >= 1

    class Killed(Exception):
        pass

    saved = []
    from transformers import Trainer

    original = Trainer._save_checkpoint

    def save_then_die(self, *args, **kwargs):
        original(self, *args, **kwargs)
        saved.append(1)
        if len(saved) == 2:
            raise Killed

    llm = model.load(model.SMOLLM2)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_save_checkpoint", save_then_die)
        tune(llm, taught(llm), settings, tmp_path / "stopped", seed=1)
    assert not (tmp_path / "stopped").exists()
    llm = model.load(model.SMOLLM2)
    stopped = tune(llm, taught(llm), settings, tmp_path / "stopped", seed=1)
    name = {"lm_head": model.LM_HEAD_FILE, "lora": "adapter_model.safetensors", "full": "model.safetensors"}[method]
    first, second = read_tensors(straight / name), read_tensors(stopped / name)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_tuning_goes_on_from_the_newest_checkpoint_that_was_written_to_its_end(tmp_path):
    assert last_checkpoint(tmp_path) is None
    states = {9: '{"global_step": 9}', 10: '{"global_step": 10}\n', 25: '{"global_', 50: "", 75: None}
    for step, state in states.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
