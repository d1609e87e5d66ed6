"""The engine against the model read plainly: one prompt at a time, no tree, and `transformers`' own greedy
generation."""

import numpy as np
import pytest
import torch

from llama4rec_core.data import load, split
from llama4rec_core.data.histories import histories
from llama4rec_core.data.wording import WORDS
from llama4rec_core.llm import score
from llama4rec_core.llm.examples import CandidateList
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.score import score_row
from llama4rec_core.llm.tree import Branch, PackedRow, Prompt, packed_rows, shared, tokens_read
from llama4rec_core.llm.tree_attention import tree_attention
from llama4rec_core.rankers import Ranker

FILMS = ["Toy Story", "Alien", "The Godfather", "Fargo", "Il Postino", "Jurassic Park", "Heat", "Sense and Sensibility"]


def prompt(llm, n, seed, key="p"):
    """A history of n films and four branches of different lengths."""
    order = np.random.default_rng(seed).permutation(len(FILMS) * 3) % len(FILMS)
    prefix = llm.encode("Films this viewer watched:\n" + "".join(FILMS[i] + "\n" for i in order[:n]))
    titles = [llm.encode(FILMS[i] + "\n") for i in order[-4:]]
    return Prompt(key, prefix, tuple(Branch(title, answer=len(title)) for title in titles))


def test_a_row_is_a_tree():
    prompts = [Prompt("a", (1, 2), (Branch((3, 4, 8), 2), Branch((5, 8), 1))), Prompt("b", (6,), (Branch((7,)),))]
    row = PackedRow.of(prompts)  # 8, the end of an answer, is predicted, and nothing is predicted from it
    assert [len(each) for each in prompts] == [5, 2]
    assert row.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert row.positions.tolist() == [0, 1, 2, 3, 2, 0, 1]
    assert row.mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],  # the second branch sees the prefix, not the first branch
        [0, 0, 0, 0, 0, 1, 0],  # the second prompt sees nothing of the first
        [0, 0, 0, 0, 0, 1, 1],
    ]
    assert row.before_branch(prompts, 0, 0) == [1, 2, 3] and row.before_branch(prompts, 0, 1) == [1, 4]


def test_what_all_prompts_begin_with_is_read_once():
    prompts = [Prompt("a", (1, 2, 3), (Branch((4, 8), 1), Branch((5,)))), Prompt("b", (1, 2, 6), (Branch((7,)),))]
    row = PackedRow.of(prompts)
    assert row.root == 2 and tokens_read(prompts) == [5, 2] and [len(each) for each in prompts] == [5, 4]
    assert row.tokens.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert row.positions.tolist() == [0, 1, 2, 3, 3, 2, 3]
    assert row.mask.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],  # the second prompt sees the root and nothing of the first
        [1, 1, 0, 0, 0, 1, 1],
    ]
    assert row.trees == [(2, 3, 5), (5, 6, 7)]
    assert row.before_branch(prompts, 0, 0) == [2, 3] and row.before_branch(prompts, 1, 0) == [5, 6]
    assert [row.place(1, at) for at in range(3)] == [0, 1, 5]


@pytest.mark.parametrize(
    ("prefixes", "root"),
    [([(1, 2, 3)], 0), ([(1, 2), (1, 2)], 1), ([(1, 2), (1, 2, 3)], 1), ([(1, 2), (3,)], 0), ([(), (1,)], 0)],
)
def test_every_prompt_keeps_a_token_of_its_own(prefixes, root):
    assert shared([Prompt(str(p), prefix, ()) for p, prefix in enumerate(prefixes)]) == root


@pytest.mark.parametrize("root", [0, 2])
def test_tree_attention_is_masked_attention(root):
    """Prompts with prefix and branches, without a prefix, without branches; grouped keys; against the whole mask."""
    prompts = [
        Prompt("a", (1, 2, 3), (Branch((3, 4)), Branch((5,)))),
        Prompt("b", (1, 2, 4) if root else (), (Branch((7, 8)),)),
        Prompt("c", (1, 2, 5) if root else (1, 2), ()),
    ]
    row = PackedRow.of(prompts)
    assert row.root == root and len(row.tokens) == 10
    assert row.trees == ([(2, 3, 6), (6, 7, 9), (9, 10, 10)] if root else [(0, 3, 6), (6, 6, 8), (8, 10, 10)])
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, heads, 10, 4, requires_grad=True) for heads in (6, 2, 2))
    module = torch.nn.Module()
    module.num_key_value_groups = 3
    mask = row.mask[None, None]
    found, _ = tree_attention(module, query, key, value, mask, scaling=0.3, trees=row.trees, root=row.root)
    wide = (each.repeat_interleave(3, dim=1) for each in (key, value))
    scores = (query @ next(wide).transpose(2, 3) * 0.3).masked_fill(~row.mask, -torch.inf)
    expected = (torch.softmax(scores, dim=-1) @ next(wide)).transpose(1, 2)
    assert torch.allclose(found, expected, atol=1e-5)
    weight = torch.randn_like(expected)
    ours, theirs = (torch.autograd.grad((each * weight).sum(), (query, key, value)) for each in (found, expected))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("places", [3, 100])
def test_token_log_probabilities_are_those_of_log_softmax_however_many_places_go_together(places, monkeypatch):
    monkeypatch.setattr(score, "PLACES", places)
    torch.manual_seed(0)
    hidden, head = torch.randn(9, 4), 3 * torch.randn(30, 4)
    at, tokens = torch.tensor([8, 0, 3, 3, 5, 8, 1]), torch.tensor([0, 29, 4, 5, 4, 7, 7])
    expected = torch.log_softmax(hidden @ head.T, dim=-1)[at, tokens]
    assert torch.allclose(score._token_log_p(hidden, head, at, tokens), expected, atol=1e-5)


@torch.inference_mode()
def plain_log_p(llm, prefix, answer):
    """Teacher forcing without a tree: the sum of log p of the answer's tokens."""
    tokens = torch.tensor([list(prefix) + list(answer)])
    log_p = torch.log_softmax(llm.model(tokens).logits[0].float(), dim=-1)
    return sum(log_p[len(prefix) - 1 + n, token].item() for n, token in enumerate(answer))


@pytest.mark.llm
def test_a_tree_scores_as_one_prompt_per_candidate(llm):
    prompts = [prompt(llm, n, seed=n, key=str(n)) for n in (1, 4, 9)]
    for asked, found in zip(prompts, score_row(llm, prompts), strict=True):
        for branch, value in zip(asked.branches, found, strict=True):
            assert value[0] == pytest.approx(plain_log_p(llm, asked.prefix, branch.tokens), abs=1e-3)


@pytest.mark.llm
def test_fifty_real_prompts_score_as_one_prompt_per_candidate(llm):
    """MovieLens users with histories of 1 to 20 titles and two candidates each, packed as in a run."""
    dataset = load("ml-100k")
    told = histories(dataset, split(dataset), 5, WORDS["ml-100k"])
    rng = np.random.default_rng(0)
    asked = []
    for user in rng.choice(dataset.n_users, 50, replace=False):
        items = rng.choice(dataset.n_items, 2, replace=False)
        drawn = CandidateList(f"u{user}", int(user), int(told.n_train[user]), items, ())
        length, prior = int(rng.integers(1, 21)), np.zeros(dataset.n_items, dtype=np.float32)
        asked.append(Ranker("likelihood", llm, told, length, None, prior, 512).prompt(drawn))
    found = {}
    for packed in packed_rows(asked, 512):
        row = [asked[i] for i in packed]
        found |= {each.key: scores for each, scores in zip(row, score_row(llm, row), strict=True)}
    for each in asked:
        for branch, value in zip(each.branches, found[each.key], strict=True):
            before = each.prefix + branch.tokens[: len(branch.tokens) - branch.answer]
            assert value[0] == pytest.approx(plain_log_p(llm, before, branch.tokens[-branch.answer :]), abs=1e-3)


@pytest.mark.llm
def test_only_the_answer_at_a_branch_s_end_counts(llm):
    asked = prompt(llm, 3, 0)
    question, answer = llm.encode("Which one?\n"), llm.encode("Alien\n")
    (found,) = score_row(llm, [Prompt("q", asked.prefix, (Branch(question + answer, len(answer)),))])
    assert found[0][0] == pytest.approx(plain_log_p(llm, asked.prefix + question, answer), abs=1e-3)


@pytest.mark.llm
def test_company_and_order_of_branches_do_not_matter(llm):
    asked = prompt(llm, 5, 2)
    (straight,) = score_row(llm, [asked])
    (turned,) = score_row(llm, [Prompt("t", asked.prefix, asked.branches[::-1])])
    assert np.concatenate(straight) == pytest.approx(np.concatenate(turned[::-1]), abs=1e-3)


@pytest.mark.llm
def test_choices_are_log_probabilities_among_themselves(llm):
    shared, digits = llm.choices([" 1", " 2", " 3", " 4", " 5"])
    asked = Prompt("r", llm.encode("Ratings from 1 to 5.\nHeat:"), (Branch(shared, choices=digits),))
    ((found,),) = score_row(llm, [asked])
    logits = llm.model(torch.tensor([list(asked.prefix + shared)])).logits[0, -1, list(digits)].detach()
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-5)
    assert found == pytest.approx(torch.log_softmax(logits.float(), 0).numpy(), abs=1e-3)


@pytest.mark.llm
def test_an_answer_of_several_tokens_is_no_choice(llm):
    with pytest.raises(ValueError, match="needs more than one token for one of"):
        llm.choices([" wonderful", " one hundred and one"])


@pytest.mark.llm
def test_generation_is_the_model_s_own_greedy_text(llm):
    prefix = llm.encode("Films, with what each is known for.\nGladiator (2000): directed by Ridley Scott\n")
    tails = [llm.encode(text) for text in ("Fargo (1996): directed by", "The Godfather (1972): directed by", "Heat:")]
    ours = generate(llm, prefix, tails, max_tokens=8)
    for tail, text in zip(tails, ours, strict=True):
        tokens = torch.tensor([list(prefix + tail)])
        out = llm.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False)
        assert text == llm.decode(out[0, tokens.shape[1] :].tolist()).split("\n")[0]
    assert generate(llm, (), [tuple(prefix + tails[0])], max_tokens=8) == ours[:1]


def test_rows_hold_every_prompt_once_and_do_not_depend_on_the_order_asked():
    prompts = [Prompt(str(n), tuple(range(n)), (Branch((1,), 1),)) for n in (5, 1, 9, 30, 2)]
    found = list(packed_rows(prompts, row_tokens=12))
    assert sorted(sum(found, [])) == [0, 1, 2, 3, 4]
    assert all(sum(len(prompts[i]) for i in row) <= 12 or len(row) == 1 for row in found)
    turned = list(packed_rows(prompts[::-1], row_tokens=12))
    assert [[prompts[i].key for i in row] for row in found] == [[prompts[::-1][i].key for i in row] for row in turned]


def test_a_model_folder_without_weights_says_so(tmp_path):
    from llama4rec_core.llm import model

    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has a config but no .*safetensors weights"):
        model.load(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        model.load(str(tmp_path))
