"""The whole choice of the weights on simulated users, where it is known what the LLM is worth.

A target stands out among its C = 20 candidates by 0.7 standard deviations of the backbone's scores. NDCG@5 within the
list is then 0.33, as for a backbone on MovieLens-100K. By how much it stands out in the LLM's scores says what a blend
can gain. Users have five validation items each, of which 400 are in their lists. "Test" is so many lists that only the
choice makes a difference.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import pytest

from llama4rec_core.aggregation import ALPHA_1, ALPHA_2, blend, user_weights, utilities
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.evaluation import ndcg
from llama4rec_core.experiment import Lists, choose_weights
from llama4rec_core.variants import VARIANTS

N_TRAIN = np.round(np.exp(np.random.default_rng(0).normal(4.3, 0.9, 943)) + 15).astype(int)
PAIRS = [(alpha_1, alpha_2) for alpha_1 in ALPHA_1 for alpha_2 in ALPHA_2]
VALIDATION, TEST, REPEATED = 400, 60_000, 40


def simulated(count: int, stands_out: float, rng: np.random.Generator) -> Lists:
    """Lists of random users that hold their target, item 0; `stands_out` is what the LLM knows about it."""
    backbone, llm = rng.normal(size=(2, count, 20))
    backbone[:, 0] += 0.7
    llm[:, 0] += stands_out
    items = np.argsort(-backbone, axis=1)
    cases = pd.DataFrame({"part": "valid", "user": rng.integers(0, len(N_TRAIN), count), "item": 0, "prefix": 1})
    scores = np.take_along_axis(backbone, items, axis=1)
    known = Predictions(cases, items, scores, None, np.zeros((len(N_TRAIN), 0)))
    return Lists(known, np.take_along_axis(llm, items, axis=1), np.ones(count, dtype=bool), "standardised")


def on_grid(cases: Lists) -> dict[tuple[float, float], np.ndarray]:
    """NDCG@5 of every case by every pair."""
    u_llm, u_rec = utilities(cases.opinion, cases.predictions.scores, cases.utilities)
    is_target, found = cases.predictions.items == 0, {}
    for pair in PAIRS:
        utility = blend(user_weights(N_TRAIN, *pair)[cases.users], u_llm, u_rec)
        found[pair] = ndcg(1 + (utility > utility[is_target][:, None]).sum(axis=1), 5)
    return found


def one_standard_error(cases: Lists) -> tuple[float, float]:
    """The rule that was used before: the least LLM of all pairs within one standard error of the best NDCG@5."""
    sums = [np.bincount(cases.users, each, len(N_TRAIN)) for each in on_grid(cases).values()]
    of_users = np.stack(sums) / 5  # [pairs, U]; an item that is in no list counts 0
    short = of_users[of_users.mean(axis=1).argmax()] - of_users
    error = short.std(axis=1, ddof=1) / np.sqrt(len(N_TRAIN))
    return PAIRS[int(np.argmax(short.mean(axis=1) <= error + 1e-12))]


def likeliest(cases: Lists) -> tuple[float, float]:
    choice = choose_weights(VARIANTS["Llama4Rec"], cases, N_TRAIN)
    return choice.alpha_1, choice.alpha_2


@dataclass(frozen=True)
class Outcome:
    """What came of a rule over many repetitions."""

    attainable: float  # the relative gain on test of the grid's best pair
    kept: float  # the mean relative gain on test of the chosen pairs
    zero: float  # the share of repetitions that chose alpha_1 = 0


@cache
def gains(stands_out: float) -> dict[tuple[float, float], float]:
    """Of every pair, on test, relative to the backbone alone."""
    test = on_grid(simulated(TEST, stands_out, np.random.default_rng(1)))
    return {pair: float(each.mean() / test[PAIRS[0]].mean()) - 1 for pair, each in test.items()}


@cache
def repeated(rule, stands_out: float) -> Outcome:
    gain = gains(stands_out)
    chosen = [rule(simulated(VALIDATION, stands_out, np.random.default_rng([2, n]))) for n in range(REPEATED)]
    kept, zero = np.mean([gain[pair] for pair in chosen]), np.mean([alpha_1 == 0 for alpha_1, _ in chosen])
    found = Outcome(max(gain.values()), float(kept), float(zero))
    print(f"{rule.__name__}, where the target stands out by {stands_out}: {found}")
    return found


def test_a_gain_of_a_few_percent_is_nearly_always_found_and_nearly_all_of_it_is_kept():
    found = repeated(likeliest, 0.23)
    assert 0.03 < found.attainable < 0.04
    assert found.zero <= 0.04 and found.kept >= 0.8 * found.attainable


def test_the_one_standard_error_rule_kept_far_less_of_it():
    ours, theirs = repeated(likeliest, 0.23), repeated(one_standard_error, 0.23)
    assert theirs.zero >= 0.1 > ours.zero and theirs.kept <= ours.kept - 0.2 * ours.attainable


def test_a_large_gain_is_always_found_and_kept():
    found = repeated(likeliest, 0.5)
    assert 0.13 < found.attainable < 0.17
    assert found.zero == 0 and found.kept >= 0.9 * found.attainable


def test_an_llm_that_knows_nothing_costs_nearly_nothing():
    found = repeated(likeliest, 0.0)
    assert found.attainable < 0.003  # noise
    assert found.zero >= 0.6 and found.kept > -0.005


@pytest.mark.parametrize("row", ["Llama4Rec", "w/o AA"])
def test_a_wrong_llm_gets_no_weight(row):
    """It puts the target last."""
    choice = choose_weights(VARIANTS[row], simulated(VALIDATION, -0.5, np.random.default_rng(3)), N_TRAIN)
    assert (choice.alpha_1, choice.gain) == (0, 0)
