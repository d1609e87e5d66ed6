"""How instruction data is divided among its kinds."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core.augmentation.prompt import Sequences
from llama4rec_core.instructions import mix, next_lists
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


def test_a_next_lesson_asks_for_each_window_item_among_random_ones_after_the_history_before_the_window():
    """User 0: items 0 1 | 2 3 are the window, 4 is validation's; user 1: 5 | 6 6."""
    items, begin = np.array([0, 1, 2, 3, 4, 5, 6, 6]), np.array([0, 5, 8])
    n_train, n_kept = np.array([4, 3]), np.array([2, 1])
    told = Sequences(
        items, np.ones(8, np.float32), begin, n_train, n_kept, tuple("abcdefghij"), ("1",), WORDS["ml-100k"]
    )
    window = pd.DataFrame({"user": [0, 0, 1, 1], "prefix": [2, 3, 1, 2], "item": [2, 3, 6, 6]})
    first, second = next_lists(told, window, 6, np.random.default_rng(0))
    assert (first.user, first.prefix, first.targets) == (0, 2, (2, 3))
    assert first.candidates[:2].tolist() == [2, 3]
    assert set(first.candidates[2:].tolist()) == {4, 5, 6, 7, 8, 9}  # not steered around validation's item
    assert (second.prefix, second.targets) == (1, (6,)) and not {5, 6} & set(second.candidates[1:].tolist())
    assert len(set(second.candidates.tolist())) == 7
