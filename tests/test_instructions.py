"""How instruction data is divided among its kinds."""

import numpy as np
import pytest

from llama4rec_core.augmentation.prompt import Sequences
from llama4rec_core.instructions import mix, next_lists, popularity, unseen
from llama4rec_core.llm.engine import Prompt
from llama4rec_core.llm.lessons import Example
from llama4rec_core.llm.prompts import WORDS


def examples(kind: int, count: int, length: int) -> list[Example]:
    return [Example(Prompt(f"{kind}-{n}", (kind, n, *range(length - 2)), ()), ()) for n in range(count)]


def spent(chosen) -> dict[str, int]:
    out: dict[str, int] = {}
    for each in chosen:
        kind = each.prompt.key.split("-")[0]
        out[kind] = out.get(kind, 0) + len(each.prompt)
    return out


def test_tokens_are_divided_as_the_shares_say_until_a_kind_runs_out():
    kinds = {"direct": examples(1, 100, 20), "next": examples(2, 100, 5), "pair": examples(3, 2, 10)}
    found = spent(mix(kinds, {"direct": 3.0, "next": 1.0, "pair": 1.0}, 800, np.random.default_rng(0)))
    assert found["3"] == 20  # all there is; the rest is divided 3 to 1
    assert 800 <= sum(found.values()) < 820 and found["1"] / found["2"] == pytest.approx(3, rel=0.1)


def test_a_kind_without_a_share_is_left_out_and_repeats_are_dropped():
    kinds = {"direct": examples(1, 3, 4) * 2, "rating": examples(2, 3, 4)}
    found = spent(mix(kinds, {"direct": 1.0}, 1000, np.random.default_rng(0)))
    assert found == {"1": 12}


def test_an_unknown_share_is_an_error():
    with pytest.raises(ValueError, match="unknown kind 'ranking': the kinds are direct, sequential"):
        mix({}, {"ranking": 1.0}, 10, np.random.default_rng(0))


def told(sequences, n_train, n_kept, titles="abcdefghij"):
    begin = np.cumsum([0, *map(len, sequences)])
    items = np.concatenate(sequences)
    return Sequences(
        items, np.ones(len(items), np.float32), begin, np.array(n_train), np.array(n_kept), tuple(titles), ("1",),
        WORDS["ml-100k"],
    )  # fmt: skip


def test_a_next_lesson_asks_for_each_item_of_a_block_after_the_history_before_it():
    """User 0: training items 0 1 2 3 7, in blocks of two from the end, 4 is validation's; user 1: 5, 6 6."""
    known = told([[0, 1, 2, 3, 7, 4], [5, 6, 6]], [5, 3], [3, 1])
    last, first, other = next_lists(known, [0, 1], 2, 5, np.random.default_rng(0))
    assert (last.user, last.prefix, last.targets) == (0, 3, (3, 7))
    assert (first.user, first.prefix, first.targets) == (0, 1, (1, 2))
    assert last.candidates[:2].tolist() == [3, 7]
    assert set(last.candidates[2:].tolist()) == {4, 5, 6, 8, 9}  # not steered around validation's item
    assert (other.prefix, other.targets) == (1, (6,)) and not {5, 6} & set(other.candidates[1:].tolist())
    assert len({each.key for each in (last, first, other)}) == 3
    rest = next_lists(known, [0], 3, 0, np.random.default_rng(0))[-1]  # of 0 | 1 | 2 3 7 the middle is left
    assert (rest.prefix, rest.targets, rest.candidates.tolist()) == (1, (1,), [1])


def test_others_are_drawn_as_often_as_they_were_chosen_before_the_windows():
    """Item 1 was chosen by seven users, 2 by one, others by none, and each once more; 3 stands in windows only."""
    known = told([[1, 3]] * 7 + [[2, 3], [0, 4]], [2] * 9, [1] * 9, "abcde")
    assert popularity(known).tolist() == [2, 8, 2, 1, 1]
    rng = np.random.default_rng(0)
    drawn = [int(unseen(known, 8, 5, 1, rng, popularity(known))[0]) for _ in range(2000)]
    share = np.bincount(drawn, minlength=5) / 2000
    assert share == pytest.approx([0, 8 / 11, 2 / 11, 1 / 11, 0], abs=0.05)
