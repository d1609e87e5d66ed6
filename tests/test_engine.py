"""The engine against the model read plainly: one prompt at a time, no tree, and `transformers`' own greedy
generation."""

import numpy as np
import pytest
import torch
from tiny import answer_log_p, next_log_p, saved, tiny

from llama4rec_core.data import load, split
from llama4rec_core.data.histories import histories
from llama4rec_core.data.wording import WORDS
from llama4rec_core.llm import model, score
from llama4rec_core.llm.examples import CandidateList
from llama4rec_core.llm.generate import generate
from llama4rec_core.llm.score import score_row, token_log_p
from llama4rec_core.llm.titles import Titles
from llama4rec_core.llm.tree import Among, Branch, PackedRow, Prompt, allowed, packed_rows, shared, tokens_read
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


def test_sets_of_tokens_are_a_vocabulary_and_which_of_it_each_holds():
    digits, letters = Among((5, 2)), Among((9, 2, 7))
    vocabulary, held = allowed([digits, letters], 12)
    assert vocabulary.tolist() == [2, 5, 7, 9]
    assert held.int().tolist() == [[1, 1, 0, 0], [1, 0, 1, 1]]
    vocabulary, held = allowed([None, digits], 8)
    assert vocabulary.tolist() == list(range(8))
    assert held.int().tolist() == [[1] * 8, [0, 0, 1, 0, 0, 1, 0, 0]]


def test_a_set_is_told_by_its_tokens_and_is_equal_to_itself_alone():
    one, same, other = Among((5, 2)), Among((5, 2)), Among((2, 5))
    assert repr(one) == repr(same) != repr(other)  # what fingerprints are made of
    assert one == one and one != same and len({one, same}) == 2


def test_an_answer_keeps_its_sets_when_it_is_cut_or_stands_after_something():
    first, second = Among((1, 2)), Among((3, 4))
    branch = Branch((9, 1, 3), 2, among=(first, second))
    assert branch.cut(1) == Branch((9, 1), 1, among=(first,))
    assert branch.after((7, 8)) == Branch((7, 8, 9, 1, 3), 2, among=(first, second))


@pytest.mark.parametrize("places", [2, 100])
def test_token_log_probabilities_are_those_of_log_softmax_among_each_one_s_set(places, monkeypatch):
    """Some asked of the whole vocabulary, some among sets; a place with two sets and with none; a set at two places."""
    monkeypatch.setattr(score, "PLACES", places)
    torch.manual_seed(0)
    hidden, head = torch.randn(9, 4), 3 * torch.randn(30, 4)
    few, many = Among((4, 29, 7)), Among((7, 0, 5, 12))
    asked = [
        (8, 0, None),
        (0, 29, few),
        (3, 4, None),
        (3, 5, many),
        (3, 4, few),
        (5, 7, many),
        (8, 7, None),
        (1, 7, None),
    ]
    logits, expected = hidden @ head.T, []
    for place, token, among in asked:
        held = list(among.tokens) if among else list(range(30))
        expected.append(logits[place, token] - torch.logsumexp(logits[place, held], 0))
    assert torch.allclose(token_log_p(hidden, head, asked), torch.stack(expected), atol=1e-5)
    whole = [each for each in asked if each[2] is None]
    assert torch.allclose(token_log_p(hidden, head, whole), torch.stack(expected)[[0, 2, 6, 7]], atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_a_tree_scores_as_one_prompt_per_candidate(tied):
    llm = tiny(tied=tied)
    prompts = [prompt(llm, n, seed=n, key=str(n)) for n in (1, 2, 4)]
    for asked, found in zip(prompts, score_row(llm, prompts), strict=True):
        for branch, value in zip(asked.branches, found, strict=True):
            assert value[0] == pytest.approx(answer_log_p(llm, asked.prefix, branch.tokens), abs=1e-3)


def test_told_apart_titles_score_among_what_the_trie_allows():
    llm = tiny()
    titles, prefix, question = Titles.told_apart(llm, FILMS), llm.encode("Films:\nHeat\n"), llm.encode("Which?\n")
    branches = (*titles.answers, titles.answers[3].after(question), Branch(question, choices=Among((65, 70))))
    (found,) = score_row(llm, [Prompt("q", prefix, branches)])
    for answer, value in zip(titles.answers, found[:8], strict=True):
        assert value[0] == pytest.approx(answer_log_p(llm, prefix, answer.tokens, answer.among), abs=1e-3)
    after, fargo = prefix + question, titles.answers[3]
    assert found[8][0] == pytest.approx(answer_log_p(llm, after, fargo.tokens, fargo.among), abs=1e-3)
    assert found[9] == pytest.approx(next_log_p(llm, after, (65, 70)).numpy(), abs=1e-3)
    assert np.exp(found[9]).sum() == pytest.approx(1, abs=1e-5)


def test_only_the_answer_at_a_branch_s_end_counts():
    llm = tiny()
    prefix, question, answer = (llm.encode(text) for text in ("Heat\nFargo\n", "Which one?\n", "Alien\n"))
    (found,) = score_row(llm, [Prompt("q", prefix, (Branch(question + answer, len(answer)),))])
    assert found[0][0] == pytest.approx(answer_log_p(llm, prefix + question, answer), abs=1e-3)


def test_company_and_order_of_branches_do_not_matter():
    llm = tiny()
    asked, other = prompt(llm, 4, 2), prompt(llm, 3, 5, "other")
    (straight,) = score_row(llm, [asked])
    (turned,) = score_row(llm, [Prompt("t", asked.prefix, asked.branches[::-1])])
    _, accompanied = score_row(llm, [other, asked])
    assert np.concatenate(straight) == pytest.approx(np.concatenate(turned[::-1]), abs=1e-3)
    assert np.concatenate(straight) == pytest.approx(np.concatenate(accompanied), abs=1e-3)


@pytest.mark.llm
def test_fifty_real_prompts_score_as_one_prompt_per_candidate(llm):
    """MovieLens users with histories of 1 to 20 titles and two candidates each, packed as in a run; titles in part, and
    told apart."""
    dataset = load("ml-100k")
    parts, rng = split(dataset), np.random.default_rng(0)
    told = histories(dataset, parts, np.zeros(dataset.n_users, dtype=int), WORDS["ml-100k"])
    prior = np.zeros(dataset.n_items, dtype=np.float32)
    for titles in (Titles.whole(llm, told.titles), Titles.told_apart(llm, told.titles)):
        asked = []
        for user in rng.choice(dataset.n_users, 25, replace=False):
            items, length = rng.choice(dataset.n_items, 2, replace=False), int(rng.integers(1, 21))
            drawn = CandidateList(f"u{user}", int(user), int(told.n_train[user]), items, ())
            asked.append(Ranker("likelihood", llm, told, titles, length, prior, 512).prompt(drawn))
        found = {}
        for packed in packed_rows(asked, 512):
            row = [asked[i] for i in packed]
            found |= {each.key: scores for each, scores in zip(row, score_row(llm, row), strict=True)}
        for each in asked:
            for branch, value in zip(each.branches, found[each.key], strict=True):
                expected = answer_log_p(llm, each.prefix, branch.tokens, branch.among)
                assert value[0] == pytest.approx(expected, abs=1e-3)


@pytest.mark.llm
def test_an_answer_of_several_tokens_is_no_choice(llm):
    with pytest.raises(ValueError, match="needs more than one token for one of"):
        llm.choices([" wonderful", " one hundred and one"])


def test_choices_share_their_beginning_and_keep_their_order():
    llm = tiny()
    shared, digits = llm.choices([" 2", " 1", " 3"])
    assert (llm.decode(shared), llm.decode(digits.tokens)) == (" ", "213")
    assert llm.choices([" 2", " 1", " 3"])[1] is digits and llm.choices([" 1", " 2", " 3"])[1] is not digits
    with pytest.raises(ValueError, match="needs more than one token for one of"):
        llm.choices([" one", " two"])


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


# --- weights ----------------------------------------------------------------------------------------------------------


def weights(llm) -> dict[str, torch.Tensor]:
    return llm.model.state_dict()


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@torch.inference_mode()
def test_the_first_layers_alone_are_read_saved_and_loaded_again(tmp_path):
    folder = str(saved(tmp_path / "three", layers=3))
    whole, first = (model.load(folder, dtype=torch.float32, layers=layers) for layers in (None, 1))
    tokens = torch.tensor([whole.encode("Heat\nFargo\n")])
    assert whole.model.config.num_hidden_layers == len(whole.model.base_model.layers) == 3
    after_one = whole.model.base_model(tokens, output_hidden_states=True).hidden_states[1]
    expected = whole.model.base_model.norm(after_one)
    assert torch.allclose(first.model.base_model(tokens).last_hidden_state, expected, atol=1e-5)
    first.model.save_pretrained(tmp_path / "one")
    again = model.load(folder, tmp_path / "one", torch.float32)
    assert again.model.config.num_hidden_layers == 1 and same(weights(again), weights(first))
    assert torch.equal(again.model(tokens).logits, first.model(tokens).logits)
    with pytest.raises(ValueError, match="tuning.layers is 4, but .*three has 3 layers"):
        model.load(folder, layers=4)


def test_a_seed_draws_weights_of_the_same_shape_and_always_the_same(tmp_path):
    folder = str(saved(tmp_path / "base"))
    own, one, again, other = (model.load(folder, dtype=torch.float32, seed=seed) for seed in (None, 5, 5, 6))
    assert same(weights(own), weights(tiny())) and same(weights(one), weights(again))
    name = "model.layers.1.mlp.up_proj.weight"
    drawn = [weights(each)[name] for each in (own, one, other)]
    assert {each.shape for each in drawn} == {drawn[0].shape}
    assert all(not torch.equal(a, b) for a, b in zip(drawn, drawn[1:] + drawn[:1], strict=True))
    assert one.encode("Heat\n") == own.encode("Heat\n")


def test_a_tuned_llm_has_the_checkpoint_s_weights_and_the_base_model_s_name_for_them(tmp_path):
    folder, checkpoint = saved(tmp_path / "base"), saved(tmp_path / "tuned", seed=1)
    base, tuned = (model.load(str(folder), each, torch.float32) for each in (None, checkpoint))
    assert same(weights(tuned), weights(tiny(seed=1))) and not same(weights(tuned), weights(base))
    assert tuned.sha256 == base.sha256 and not base.checkpoint_sha256
    assert tuned.checkpoint_sha256 == model.folder_sha256(checkpoint) != base.sha256


def test_weights_come_in_the_format_that_the_machine_reads_fastest_in(tmp_path, monkeypatch):
    folder = str(saved(tmp_path / "base"))
    for fast in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(model, "number_format", lambda fast=fast: fast)
        assert model.load(folder).model.dtype == fast


def test_a_model_folder_without_weights_says_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="has a config but no .*safetensors weights"):
        model.load(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no config.json"):
        model.load(str(tmp_path))
