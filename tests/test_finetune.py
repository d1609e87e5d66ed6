"""The losses by hand and against the model read plainly; what tuning changes and leaves; and that it goes on after a
kill."""

import math
import os
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from peft import LoraModel
from safetensors.torch import load_file
from tiny import N_TOKENS, saved, tiny
from transformers import Trainer

from llama4rec_core.files import read_json
from llama4rec_core.llm import finetune, model
from llama4rec_core.llm.examples import ChoiceSet, Example
from llama4rec_core.llm.finetune import clean, last_checkpoint, pack, tune
from llama4rec_core.llm.loss import LEARN, PLACE, RIGHT, TOKEN, Answering, TokenLogP, collate, tokens_of, tree_loss
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Among, Branch, Prompt
from llama4rec_core.presets import LoRASettings, TuningSettings

# --- by hand ----------------------------------------------------------------------------------------------------------


def example():
    """Prefix 1 2 with 2 learnt; two titles, "3 4" (right) and "5"."""
    prompt = Prompt("p", (1, 2), (Branch((3, 4), 2), Branch((5,), 1)), learn=((1, None),))
    return Example(prompt, (ChoiceSet((0, 1), 0),))


def test_targets_say_which_place_predicts_which_token():
    batch = collate([[example()]], 6)
    table = batch["labels"]
    places, tokens = batch["places"][table[:, PLACE]], batch["vocabulary"][table[:, TOKEN]]
    rows = list(zip(places.tolist(), tokens.tolist(), table[:, LEARN].bool().tolist(), strict=True))
    # the history's 2 after place 0; 3 after the prefix's end, 4 after 3 (place 2); 5 after the prefix's end, not learnt
    assert rows == [(0, 2, True), (1, 3, True), (2, 4, True), (1, 5, False)]
    assert table[:, RIGHT].tolist() == [0, 1, 1, 0]


def test_a_target_s_logits_are_of_its_set_and_a_place_has_a_row_for_each_of_its_sets():
    """After 1 2 come a title's 3 among 3 and 5, and a rating, 8, among 7, 8, 9; in the history 2 is among 2 and 6."""
    first, digits, history = Among((3, 5)), Among((7, 8, 9)), Among((2, 6))
    branches = (Branch((3,), 1, among=(first,)), Branch((5,), 1, among=(first,)), Branch((), choices=digits))
    one = Example(Prompt("p", (1, 2), branches, ((1, history),)), (ChoiceSet((0, 1), 0), ChoiceSet((2,), 1)))
    batch = collate([[one]], 20)
    assert batch["vocabulary"].tolist() == [2, 3, 5, 6, 7, 8, 9]
    rows = [
        (place, batch["vocabulary"][held].tolist())
        for place, held in zip(batch["places"].tolist(), batch["held"][batch["of_set"]], strict=True)
    ]
    assert sorted(rows) == [(0, [2, 6]), (1, [3, 5]), (1, [7, 8, 9])]
    table = batch["labels"]
    of_label = table[:, PLACE].tolist(), batch["vocabulary"][table[:, TOKEN]].tolist()
    found = [(*rows[place], token) for place, token in zip(*of_label, strict=True)]
    title, digit = (1, [3, 5]), (1, [7, 8, 9])
    assert found == [(0, [2, 6], 2), (*title, 3), (*title, 5), (*digit, 7), (*digit, 8), (*digit, 9)]
    assert table[:, LEARN].tolist() == [1, 1, 0, 0, 1, 0]


def test_both_losses_by_hand():
    batch = collate([[example()]], 6)
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 6)
    log_p = torch.log_softmax(logits[0], -1)
    history, right, wrong = log_p[0, 2], log_p[1, 3] + log_p[2, 4], log_p[1, 5]
    cross_entropy = -(history + right) / 3
    choice = -(right - math.log(math.exp(right) + math.exp(wrong)))
    out = SimpleNamespace(logits=logits)
    assert tree_loss(out, batch["labels"], choice_weight=0.0).item() == pytest.approx(cross_entropy.item(), abs=1e-5)
    both = (cross_entropy + 2 * choice).item()
    assert tree_loss(out, batch["labels"], choice_weight=2.0).item() == pytest.approx(both, abs=1e-5)
    assert tree_loss(out, batch["labels"], None, 2.0, rows_per_step=4).item() == pytest.approx(both / 4, abs=1e-5)
    softer = -(right / 4 - math.log(math.exp(right / 4) + math.exp(wrong / 4)))
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
    prompt = Prompt("r", (1, 2), (Branch((3,), choices=Among((7, 8, 9))),))
    batch = collate([[Example(prompt, (ChoiceSet((0,), 2),))]], 10)
    assert batch["places"].tolist() == [2] and batch["vocabulary"].tolist() == [7, 8, 9]
    logits = torch.randn(1, 1, 3)
    log_p = torch.log_softmax(logits[0, 0], -1)
    for temperature in (1.0, 5.0):  # a digit is one token: the temperature of titles is not its own
        found = tree_loss(SimpleNamespace(logits=logits), batch["labels"], temperature=temperature)
        assert found.item() == pytest.approx(-2 * log_p[2].item(), abs=1e-5)  # what is likely is likelier than others


def test_a_title_and_a_digit_in_one_row_keep_their_own_temperatures():
    digit = Example(Prompt("r", (6, 2), (Branch((3,), choices=Among((7, 8))),)), (ChoiceSet((0,), 1),))
    batch = collate([[example(), digit]], 10)
    logits = torch.randn(1, len(batch["places"]), 10)
    table = torch.log_softmax(logits[0], -1)
    label = [table[place, token].item() for place, token in batch["labels"][:, [PLACE, TOKEN]]]
    right, wrong, (low, high) = label[1] + label[2], label[3], label[4:]
    title = -6 * (right / 6 - math.log(math.exp(right / 6) + math.exp(wrong / 6)))
    rating = -(high - math.log(math.exp(high) + math.exp(low)))
    without, found = (
        tree_loss(SimpleNamespace(logits=logits), batch["labels"], choice_weight=w, temperature=6.0) for w in (0.0, 1.0)
    )
    assert (found - without).item() == pytest.approx((title + rating) / 2, abs=1e-5)


def test_two_choice_sets_count_alike():
    one = Example(Prompt("a", (1,), (Branch((2,), 1), Branch((3,), 1))), (ChoiceSet((0, 1), 0), ChoiceSet((0, 1), 1)))
    batch = collate([[one]], 5)
    logits = torch.randn(1, 1, 5)
    log_p = torch.log_softmax(logits[0, 0], -1)
    both = torch.logsumexp(torch.stack([log_p[2], log_p[3]]), 0)
    choice = -((log_p[2] - both) + (log_p[3] - both)) / 2
    expected = -(log_p[2] + log_p[3]) / 2 + choice
    assert tree_loss(SimpleNamespace(logits=logits), batch["labels"]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_tokens_of_examples_are_those_read_said_and_possible():
    digits, first = Among((40, 30)), Among((9, 5))
    branches = (Branch((6, 5), 1, among=(first,)), Branch((8,), choices=digits))
    told = Example(Prompt("a", (3, 2), branches, ((1, Among((2, 70))),)), ())
    assert tokens_of([told], 99).tolist() == [2, 3, 5, 6, 8, 9, 30, 40, 70]
    assert tokens_of([told, example()], 99).tolist() == list(range(99))  # an answer among all
    learnt = Example(Prompt("b", (3, 2), (), ((1, None),)), ())
    assert tokens_of([learnt], 99).tolist() == list(range(99))
    assert tokens_of([Example(Prompt("b", (3, 2), ()), ())], 99).tolist() == [2, 3]


# --- against the model read plainly -----------------------------------------------------------------------------------

FILMS = ("Star Wars", "Star Trek", "Fargo", "Heat", "Her", "Her")


def taught(llm) -> list[Example]:
    """One of each kind: a history to learn, a list, ratings, a pair in both orders."""
    titles, encode = Titles.told_apart(llm, FILMS), llm.encode
    shared, digits = llm.choices([" 1", " 2", " 3"])
    answers, question = titles.answers, encode("Which?\n")
    start, learn = encode("Films:\n"), []
    prefix = start
    for item in (2, 0):
        learn += [(len(prefix) + n, among) for n, among in enumerate(answers[item].among)]
        prefix += titles.quoted(item)
    rated = encode("Films:\nFargo:") + shared
    asked = tuple(Branch(titles.names[item] + encode(":") + shared, choices=digits) for item in (1, 3))
    return [
        Example(Prompt("history", prefix, (), tuple(learn)), ()),
        Example(Prompt("list", prefix, answers[:5]), (ChoiceSet((1, 0, 2, 4), 0), ChoiceSet((3, 0, 2, 4), 0))),
        Example(
            Prompt("rating", rated + (digits.tokens[2], *encode("\n")), asked, ((len(rated), digits),)),
            (ChoiceSet((0,), 2), ChoiceSet((1,), 0)),
        ),
        Example(
            Prompt("pair", start, tuple(answers[item].after(question) for item in (2, 3, 2, 3))),
            (ChoiceSet((0, 1), 0), ChoiceSet((2, 3), 0)),
        ),
    ]


def plain_loss(causal, examples, choice_weight, temperature):
    """The loss, each prompt and branch read alone by `transformers`, its log-probabilities among its set's tokens."""

    def log_p(before, token, among):
        logits = causal(torch.tensor([before])).logits[0, -1]
        held = list(among.tokens)
        return torch.log_softmax(logits[held], 0)[held.index(token)]

    learnt, choices = [], []
    for each in examples:
        prefix, branches = each.prompt.prefix, each.prompt.branches
        learnt += [log_p(prefix[:at], prefix[at], among) for at, among in each.prompt.learn]
        for asked in each.choice_sets:
            soft, said = temperature, []
            for b in asked.branches:
                branch = branches[b]
                if branch.choices:
                    soft, before = 1.0, prefix + branch.tokens
                    said += [[log_p(before, token, branch.choices)] for token in branch.choices.tokens]
                else:
                    n = len(branch.tokens) - branch.answer
                    places = range(n, len(branch.tokens))
                    said.append(
                        [log_p(prefix + branch.tokens[:t], branch.tokens[t], branch.among[t - n]) for t in places]
                    )
            learnt += said[asked.right]
            scores = torch.stack([torch.stack(each).sum() for each in said]) / soft
            choices.append(-soft * torch.log_softmax(scores, 0)[asked.right])
    learnt = [each for each in learnt if each != 0]  # where one token alone could stand, log p is 0: nothing to learn
    return -torch.stack(learnt).mean() + choice_weight * torch.stack(choices).mean()


@pytest.mark.parametrize("tied", [True, False])
def test_a_packed_row_has_the_loss_and_gradient_of_each_branch_read_alone(tied):
    llm = tiny(tied=tied)
    plain, examples = deepcopy(llm.model), taught(llm)
    expected = plain_loss(plain, examples, choice_weight=0.7, temperature=3.0)
    expected.backward()

    tokens = tokens_of(examples, N_TOKENS)
    answering = Answering(llm.model, tokens, torch.float32)
    batch = collate([examples], N_TOKENS)
    labels = batch.pop("labels")
    found = tree_loss(answering(**batch), labels, choice_weight=0.7, temperature=3.0)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)

    def alike(ours, theirs):
        return torch.allclose(ours, theirs, atol=1e-4 * theirs.abs().max().item())

    table, head = plain.get_input_embeddings().weight.grad, plain.get_output_embeddings().weight.grad
    others = [n for n in range(N_TOKENS) if n not in tokens.tolist()]
    assert alike(answering.rows.grad, table[tokens])
    assert tied or alike(answering.head_rows.grad, head[tokens])
    assert hasattr(answering, "head_rows") == (not tied) and len(others) > 50
    names = [name for name, _ in plain.base_model.named_parameters() if "embed" not in name]
    ours, theirs = dict(llm.model.base_model.named_parameters()), dict(plain.base_model.named_parameters())
    assert all(alike(ours[name].grad, theirs[name].grad) for name in names) and len(names) > 10


def test_probability_is_only_among_the_tokens_that_can_stand_there():
    llm = tiny()
    examples = taught(llm)
    batch = collate([examples], N_TOKENS)
    batch.pop("labels")
    logits = Answering(llm.model, tokens_of(examples, N_TOKENS), torch.float32)(**batch).logits[0]
    possible = batch["held"][batch["of_set"]]
    p = logits.softmax(-1)
    assert (p[~possible] == 0).all() and (p[possible] > 0).all() and not possible.all()
    assert torch.allclose(p.sum(-1), torch.ones(len(p)))


# --- tuning -----------------------------------------------------------------------------------------------------------


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


def settings(method="full", **how) -> TuningSettings:
    """About a step for each example."""
    return TuningSettings(**({"method": method, "row_tokens": 40, "save_steps": 2, "lora": LoRASettings(4)} | how))


@pytest.fixture
def exact(monkeypatch):
    """float32 throughout, whatever the machine reads fastest in."""
    monkeypatch.setattr(finetune, "number_format", lambda: torch.float32)


def tuned(llm, folder, method="full", examples=None, seed=1, **how):
    examples = taught(llm) * 2 if examples is None else examples
    how = settings(method, **how)
    return tune(llm, pack(examples, how.row_tokens, seed), how, 1e-2, folder, seed)


def scores(llm, examples) -> np.ndarray:
    found = score_row(llm, [each.prompt for each in examples if each.choice_sets])
    return np.concatenate([values for branches in found for values in branches])


def changed(before, after, name: str) -> set[int]:
    """Tokens whose rows of a matrix differ."""
    rows = [getattr(llm.model, name)().weight for llm in (before, after)]
    return set((rows[0] != rows[1]).any(dim=1).nonzero().flatten().tolist())


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("tied", [True, False])
def test_tuning_teaches_and_changes_of_the_vocabulary_only_what_occurs(tmp_path, exact, method, tied):
    base = saved(tmp_path / "base", tied=tied)
    examples, fresh = taught(tiny(tied=tied)), tiny(tied=tied)
    folder = tuned(tiny(tied=tied), tmp_path / "out", method, examples * 6)
    after = model.load(str(base), folder, torch.float32)
    assert after.checkpoint_sha256 and not after.model.training

    read, possible, contested = set(), set(), set()
    for prompt in (each.prompt for each in examples):
        read.update(prompt.prefix, *(branch.read for branch in prompt.branches))
        sets = [among for _, among in prompt.learn]
        sets += [among for branch in prompt.branches for among in (branch.choices, *branch.among) if among]
        possible.update(*(among.tokens for among in sets))
        contested.update(*(among.tokens for among in sets if len(among.tokens) > 1))  # log p of the only one is 0
    least, most = (read | contested, read | possible) if tied else (contested, possible)
    assert least <= changed(fresh, after, "get_output_embeddings") <= most
    assert tied or changed(fresh, after, "get_input_embeddings") == read
    with torch.inference_mode():
        before, now = (plain_loss(each.model, examples, 1.0, 1.0).item() for each in (fresh, after))
    assert now < 0.7 * before

    told = read_json(folder / "tuning.json")
    curve = pd.read_csv(folder / "curve.csv")
    assert (told["examples"], told["llm"]["name"], told["llm"]["sha256"]) == (24, "tiny", fresh.sha256)
    assert told["steps"] == len(curve) == told["rows"] > 10
    assert curve["loss"].tail(6).mean() < curve["loss"].head(6).mean()


@pytest.mark.parametrize("method", ["full", "lora"])
def test_layers_that_are_computed_again_learn_the_same(tmp_path, exact, monkeypatch, method):
    """Where memory is saved, each layer's forward pass runs twice a step."""
    llm, calls, weights = tiny(), [], []
    forward = torch.nn.Linear.forward
    for again in (False, True):
        calls.append(0)

        def counted(self, x, forward=forward):
            calls[-1] += self.out_features == 48  # the gate and the up projection of each layer
            return forward(self, x)

        monkeypatch.setattr(torch.nn.Linear, "forward", counted)
        folder = tuned(tiny(), tmp_path / str(again), method, taught(llm), gradient_checkpointing=again)
        weights.append(load_file(folder / "model.safetensors"))
    assert calls[1] == 2 * calls[0] > 0
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_merged_checkpoint_scores_as_the_lora_model_did(tmp_path, exact, monkeypatch):
    llm, seen = tiny(), []
    examples, merge = taught(llm), LoraModel.merge_and_unload

    def look_then_merge(self, *args, **kwargs):
        llm.model.eval()
        seen.append(scores(llm, examples))
        names = [name for name, _ in llm.model.named_parameters() if "lora" in name]
        assert len(names) == 2 * 2 * len(finetune.LINEAR)  # two matrices, in two layers
        return merge(self, *args, **kwargs)

    monkeypatch.setattr(LoraModel, "merge_and_unload", look_then_merge)
    base = saved(tmp_path / "base")
    folder = tuned(llm, tmp_path / "out", "lora", examples * 3)
    found = scores(model.load(str(base), folder, torch.float32), examples)
    assert found == pytest.approx(seen[0], abs=1e-3)
    assert np.abs(found - scores(tiny(), examples)).max() > 0.5
    assert not any("lora" in name for name in load_file(folder / "model.safetensors"))


def test_nothing_to_learn_leaves_the_llm_as_it_is(tmp_path, exact):
    folder = tuned(tiny(), tmp_path / "out", examples=[])
    after = model.load(str(saved(tmp_path / "base")), folder, torch.float32)
    fresh = tiny().model.state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in after.model.state_dict().items())
    told = read_json(folder / "tuning.json")
    assert (told["steps"], told["tokens"], told["final_loss"]) == (0, 0, None)
    assert len(pd.read_csv(folder / "curve.csv")) == 0


class Killed(Exception):
    pass


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_stopped_tuning_goes_on_to_the_same_weights(tmp_path, monkeypatch, method):
    """Straight through; stopped after the second intermediate checkpoint; gone on from there, with half the steps."""
    straight, steps, saves = tuned(tiny(), tmp_path / "straight", method), [], []
    original, step = Trainer._save_checkpoint, Trainer.training_step

    def save_then_die(self, *args, **kwargs):
        original(self, *args, **kwargs)
        saves.append(1)
        if len(saves) == 2:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Trainer, "_save_checkpoint", save_then_die)
        tuned(tiny(), tmp_path / "stopped", method)
    assert not (tmp_path / "stopped").exists()
    monkeypatch.setattr(Trainer, "training_step", lambda *args, **kwargs: steps.append(1) or step(*args, **kwargs))
    stopped = tuned(tiny(), tmp_path / "stopped", method)
    first, second = (load_file(folder / "model.safetensors") for folder in (straight, stopped))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    curves = [pd.read_csv(folder / "curve.csv") for folder in (straight, stopped)]
    assert curves[0]["step"].tolist() == curves[1]["step"].tolist() and len(steps) == len(curves[0]) - 4
    np.testing.assert_array_equal(curves[0]["loss"], curves[1]["loss"])

    assert list(tmp_path.glob(".stopped-*"))
    clean(stopped)
    assert not list(tmp_path.glob(".stopped-*")) and list(tmp_path.glob(".straight-*")) and stopped.exists()


def profile(name: str):
    return load_config_from_file(str(Path(__file__).parents[1] / "profiles" / "accelerate" / f"{name}.yaml"))


def shared_by_two(*arguments, split: bool = False) -> int:
    """Two processes tune as one, on this machine's loopback; returns their exit status. split: over both (FSDP)."""
    here = Path(__file__).parent
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    env = os.environ | {"PYTHONPATH": f"{here.parent}{os.pathsep}{here}", "OMP_NUM_THREADS": "1"}
    if split:  # what `accelerate launch` makes of its file
        told = {name.upper(): str(value) for name, value in profile("split-over-gpus").fsdp_config.items()}
        env |= told | {"ACCELERATE_USE_FSDP": "true"}
    done = subprocess.run([*command, here / "tune_tiny.py", *arguments], env=env, capture_output=True, timeout=300)
    return done.returncode


@pytest.mark.parametrize(
    "method, split, stopped_after",
    [
        ("full", False, ()),
        ("lora", False, ("2",)),
        ("full", True, ("2",)),
        pytest.param("lora", True, (), marks=pytest.mark.slow),
    ],
    ids=["full", "lora, stopped", "full, split, stopped", "lora, split"],
)
def test_two_processes_end_with_the_weights_of_one_also_when_stopped(tmp_path, exact, method, split, stopped_after):
    llm = tiny(tied=method == "lora")
    alone, two = tuned(llm, tmp_path / "alone", method, rows_per_step=2), tmp_path / "two"
    told = read_json(alone / "tuning.json")
    assert told["rows"] == 2 * told["steps"] == 8
    for steps in stopped_after:
        assert shared_by_two(two, method, steps, split=split) != 0 and not two.exists()
        assert len(list(tmp_path.glob(".two-*/checkpoint-2/pytorch_model_fsdp_0/*.distcp"))) == 2 * split
    assert shared_by_two(two, method, split=split) == 0
    expected, found = (load_file(folder / "model.safetensors") for folder in (alone, two))
    assert found.keys() == expected.keys()
    for key, value in found.items():
        torch.testing.assert_close(value, expected[key], atol=1e-5, rtol=1e-5)
    assert read_json(two / "tuning.json")["steps"] == told["steps"]
    curves = [pd.read_csv(folder / "curve.csv")["loss"] for folder in (alone, two)]
    np.testing.assert_allclose(*curves, rtol=1e-4)


def test_the_accelerate_profiles_are_such_that_accelerate_reads():
    whole, split = profile("several-gpus"), profile("split-over-gpus")
    assert (whole.distributed_type, whole.num_processes) == ("MULTI_GPU", 2)
    assert (split.distributed_type, split.fsdp_config["fsdp_version"]) == ("FSDP", 2)


def test_processes_that_do_not_divide_a_step_s_rows_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ValueError, match="tuning.rows_per_step is 2: 4 processes share the rows of a step"):
        tuned(tiny(), tmp_path / "out", rows_per_step=2)


def test_another_seed_or_rate_does_not_go_on_from_a_stopped_tuning(tmp_path):
    tuned(tiny(), tmp_path / "out", seed=1)
    before = set(tmp_path.glob(".out-*"))
    (tmp_path / "out").rename(tmp_path / "first")
    tuned(tiny(), tmp_path / "out", seed=2)
    assert len(set(tmp_path.glob(".out-*")) - before) == 1
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "out"))
    assert any(not torch.equal(one[key], two[key]) for key in one)


def test_tuning_goes_on_from_the_newest_checkpoint_that_was_written_to_its_end(tmp_path):
    assert last_checkpoint(tmp_path) is None
    states = {9: '{"global_step": 9}', 10: '{"global_step": 10}\n', 25: '{"global_', 50: "", 75: None}
    for step, state in states.items():
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
