"""The stack of a backbone and several opinions: its weights by hand and by another optimiser, and what it does to
orders and ratings."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax

from llama4rec_core import aggregation, evaluation, experiment
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.experiment import Lists, Ratings
from llama4rec_core.tasks import TASKS


def some_lists(rng, m=300, candidates=6, worth=(1.5, 0.0, -0.7)):
    """Three judges' scores [m, C, 3], and targets drawn by their worth."""
    features = rng.normal(size=(m, candidates, len(worth)))
    p = np.exp(log_softmax(features @ worth, axis=1))
    return features, np.array([rng.choice(candidates, p=each) for each in p])


def test_the_weights_are_where_the_penalised_likelihood_is_largest():
    features, target = some_lists(np.random.default_rng(0))
    rows = np.arange(len(target))

    def loss(w):
        return -log_softmax(features @ w, axis=1)[rows, target].sum() + 2.0 * w @ w / 2

    found = aggregation.stack_lists(features, target, ridge=2.0)
    assert found == pytest.approx(minimize(loss, np.zeros(3), tol=1e-10).x, abs=1e-4)
    assert found == pytest.approx([1.5, 0.0, -0.7], abs=0.3)  # what the targets were drawn by


def test_one_judge_and_one_list_by_hand():
    # two candidates with scores 1 and 0, each the target once: no reason for a weight
    features = np.array([[[1.0], [0.0]], [[1.0], [0.0]]])
    assert aggregation.stack_lists(features, [0, 1]) == pytest.approx([0.0], abs=1e-9)
    # always the first: ridge w = 2 (1 - 1 / (1 + exp(-w)))
    (w,) = aggregation.stack_lists(features, [0, 0])
    assert w == pytest.approx(2 * (1 - 1 / (1 + np.exp(-w))))
    with pytest.raises(ValueError, match="target must be"):
        aggregation.stack_lists(features, [0])


def test_ratings_are_regressed_with_an_intercept():
    x = np.array([[1.0, 5.0], [2.0, 1.0], [3.0, 4.0], [4.0, 2.0]])
    assert aggregation.stack_ratings(x, 0.5 + x @ [2.0, -1.0], ridge=0.0) == pytest.approx([0.5, 2.0, -1.0])
    tight = aggregation.stack_ratings(x, 0.5 + x @ [2.0, -1.0], ridge=1e9)
    assert tight == pytest.approx([(0.5 + x @ [2.0, -1.0]).mean(), 0, 0], abs=1e-6)


def lists_of(scores, target, opinions, part="valid"):
    n, candidates = scores.shape
    order = np.argsort(-scores, axis=1)
    items = order.astype(np.int64)
    cases = pd.DataFrame({"case": range(n), "part": part, "user": range(n), "item": target, "rating": 5.0, "prefix": 1})
    known = Predictions(cases, items, np.take_along_axis(scores, order, 1).astype(np.float32), None, np.zeros((n, 0)))
    asked = np.ones(n, dtype=bool)
    return [Lists(known, np.take_along_axis(each, order, 1), asked, "positions") for each in opinions]


def test_a_stack_finds_the_judge_that_knows_and_its_order_is_final():
    rng = np.random.default_rng(1)
    target = rng.integers(0, 8, 200)
    backbone, useless = rng.normal(size=(2, 200, 8))
    knows = rng.normal(size=(200, 8)) + 3 * (np.arange(8) == target[:, None])
    without = lists_of(backbone, target, [useless])
    joined = lists_of(backbone, target, [useless, knows])
    weights = experiment.fit_stack(joined)
    assert abs(weights[:2]).max() < 0.4 < 1.0 < weights[2]
    ours = experiment.stacked(joined, weights).metric(1.0).mean()
    assert ours > experiment.stacked(without, experiment.fit_stack(without)).metric(1.0).mean() + 0.2
    # by hand, of the first list: standardised scores times weights
    first = joined[0].predictions
    scores = [first.scores, *(each.opinion for each in joined)]
    blend = sum(w * aggregation.standardise(each) for w, each in zip(weights, scores, strict=True))
    rank = 1 + (blend > blend[np.arange(200), (first.items == target[:, None]).argmax(1)][:, None]).sum(axis=1)
    assert (experiment.stacked(joined, weights).rank(1.0) == rank).all()


def test_what_validation_says_of_a_stack_is_by_weights_of_other_users(monkeypatch):
    """A fit that gives the backbone all weight, unless user 0 is among those it is fitted on."""
    rng = np.random.default_rng(3)
    target = rng.integers(0, 8, 40)
    cases, left_out = lists_of(rng.normal(size=(40, 8)), target, [rng.normal(size=(40, 8))]), []

    def fit(of):
        left_out.append(sorted(set(range(40)) - set(of[0].users)))
        return np.array([0.0, 1.0]) if 0 in of[0].users else np.array([1.0, 0.0])

    monkeypatch.setattr(experiment, "fit_stack", fit)
    found = experiment.validated_stack(TASKS["direct"], cases)
    assert sorted(sum(left_out, [])) == list(range(40)) and [len(fold) for fold in left_out] == [8] * 5
    (with_0,) = [fold for fold in left_out if 0 in fold]
    backbone, opinion = (cases[0].metric(alpha) for alpha in (0.0, 1.0))
    assert found == {"validation": pytest.approx(np.where(np.isin(range(40), with_0), backbone, opinion).mean())}
    assert backbone.mean() != opinion.mean()


def test_a_stack_of_ratings_clips_to_the_scale_and_refuses_test():
    users, actual = np.arange(50), np.linspace(1, 5, 50)
    noisy = actual + np.random.default_rng(2).normal(size=50)
    cases = [Ratings(users, np.array(["valid"] * 50), actual, actual * 2, noisy, (1.0, 5.0))]
    weights = experiment.fit_stack(cases)
    joined = experiment.stacked(cases, weights)
    assert joined.opinion == pytest.approx(weights[0] + weights[1] * noisy + weights[2] * 2 * actual)
    assert evaluation.rating_metrics(joined.predicted(1.0), actual, users)["MSE"].mean() < 0.01
    seen = [Ratings(users, np.array(["test"] * 50), actual, actual, noisy, (1.0, 5.0))]
    with pytest.raises(ValueError, match="validation alone"):
        experiment.fit_stack(seen)
