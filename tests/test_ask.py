"""scripts/ask.py on a small run, with an LLM that remembers what it was asked: which checkpoint answers, about which
cases, with which hints. Every expected prompt is put together here, from the sequences themselves."""

import sys

import numpy as np
import pandas as pd
import pytest
from standins import (
    N_TRAIN,
    PRESET,
    SEED,
    SEQUENCES,
    TITLES,
    TOLD,
    Characters,
    list_prompt,
    open_run,
    predicted,
    rating_of,
    rating_prompt,
    score_row,
    script,
)

from llama4rec_core.backbones.predict import read_predictions
from llama4rec_core.files import read_json
from llama4rec_core.llm import batches, model
from llama4rec_core.run import draw_users, rng

LLMS = ("untuned", "without_hints", "with_hints")


class Asked:
    """The run, the script, and the LLMs that it loaded."""

    def __init__(self, folder, monkeypatch, preset=PRESET):
        self.run, self.ready = open_run(folder, preset)
        self.loaded, self.main, self.folder, self.monkeypatch = [], script("ask").main, folder, monkeypatch
        monkeypatch.setattr(batches, "score_row", score_row)
        monkeypatch.setattr(model, "load", self.load)

    def load(self, name, checkpoint=None):
        """An LLM that likes the alphabet's end, each checkpoint more than the one before."""
        strength = {"untuned": 1, f"without_hints-s{SEED}": 2, f"with_hints-s{SEED}": 3}
        said = checkpoint.name if checkpoint else "untuned"
        assert name == self.run.preset.llm
        assert checkpoint is None or checkpoint == self.run.path(f"llm/{checkpoint.name}")
        self.loaded.append(
            Characters(lambda prefix, text: strength[said] * float(ord(text.strip()[-1]) - ord("A")), said)
        )
        return self.loaded[-1]

    def ask(self, backbone, fit, llm, *more, name=None):
        words = ["ask.py", self.folder / "small.yaml", backbone, fit, llm, SEED, *more]
        self.monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        self.main()
        return pd.read_parquet(self.run.path(f"scores/{name or f'{backbone}-{fit}-{llm}'}-s{SEED}.parquet"))

    @property
    def prompts(self):
        """What the last LLM read: key -> prefix and branches."""
        llm = self.loaded[-1]
        return {prompt.key: (llm.text(prompt), llm.branches(prompt)) for prompt in llm.read}


@pytest.fixture
def asked(results, tmp_path, monkeypatch):
    return Asked(tmp_path, monkeypatch)


@pytest.mark.parametrize("llm", LLMS)
@pytest.mark.parametrize("backbone", ["LightGCN", "DeepFM"])
def test_each_file_of_scores_is_the_answer_of_the_checkpoint_in_its_name(asked, backbone, llm):
    found = asked.ask(backbone, "base", llm)
    assert [each.checkpoint_sha256 for each in asked.loaded] == ["untuned" if llm == "untuned" else f"{llm}-s{SEED}"]
    strength = 1 + LLMS.index(llm)
    if backbone == "LightGCN":
        assert (found["log_p"] == strength * found["item"]).all()
    else:  # the digit's own code counts: the LLM likes 5 best, the stronger the more
        p = np.exp(strength * np.arange(1, 6.0))
        assert found["expected"].to_numpy() == pytest.approx(p @ np.arange(1, 6) / p.sum(), abs=1e-4)
    cost = read_json(asked.run.path(f"scores/{backbone}-base-{llm}-s{SEED}.json"))
    assert cost["prompts"] == cost["prompts_sent"] == len(asked.loaded[0].read)


def test_rating_prompts_without_hints_are_asked_once_and_serve_every_fit(asked):
    base, augmented = (asked.ask("DeepFM", fit, "without_hints") for fit in ("base", "augmented"))
    assert asked.loaded[0].read and not asked.loaded[1].read
    assert (base["expected"] == augmented["expected"]).all() and (base["backbone"] != augmented["backbone"]).any()
    for fit in ("base", "augmented"):  # these tell each fit's own predictions
        asked.ask("DeepFM", fit, "with_hints")
    assert asked.loaded[2].read and asked.loaded[3].read


def expected_lists(asked, fit, parts, hinted, backbone="LightGCN", titles=TOLD, users=range(8)):
    """All ranking prompts of a fit's cases whose list holds its target."""
    known = read_predictions(asked.run.path(f"backbones/{backbone}-s{SEED}/{fit}"))
    return {
        f"{row.part}-{row.user}-{row.prefix}": list_prompt(row, items, hinted, titles)
        for row, items in zip(known.cases.itertuples(), known.items.tolist(), strict=True)
        if row.part in parts and row.item in items and row.user in users
    }


@pytest.mark.parametrize("backbone", ["LightGCN", "SASRec"])
def test_llm_1_is_asked_about_the_lists_that_hold_their_target_and_told_no_hint(asked, backbone):
    asked.ask(backbone, "base", "without_hints")
    expected = expected_lists(asked, "base", ("valid", "test"), None, backbone=backbone)
    assert asked.prompts == expected and 8 <= len(expected) <= 12  # of 16 cases


def test_the_untuned_llm_is_asked_about_validation_alone_and_told_no_hint(asked):
    found = asked.ask("LightGCN", "base", "untuned")
    assert asked.prompts == expected_lists(asked, "base", ("valid",), None, titles=TITLES)
    # half of each title's log-likelihood without a history, -item, is taken off
    assert (found["utility"] == found["item"] + 0.5 * found["item"]).all()


def test_the_untuned_llm_is_asked_about_no_more_users_than_the_preset_says(results, tmp_path, monkeypatch):
    """The same users as those of the ratings come first; a tuned LLM is asked about all lists."""
    asked = Asked(tmp_path, monkeypatch, PRESET.replace("rating_users: 3", "rating_users: 3, untuned_users: 4"))
    users = draw_users(4, 8, rng("measured users"))
    asked.ask("LightGCN", "base", "untuned")
    expected = expected_lists(asked, "base", ("valid",), None, titles=TITLES, users=users)
    assert asked.prompts == expected and 0 < len(expected) < 6  # of 6 lists that hold their target
    asked.ask("LightGCN", "base", "without_hints")
    assert asked.prompts == expected_lists(asked, "base", ("valid", "test"), None)
    found = asked.ask("DeepFM", "base", "untuned")
    assert set(found["user"]) == set(draw_users(3, 8, rng("measured users"))) < set(users)


def test_a_tuned_llm_s_utility_is_what_it_said(asked):
    found = asked.ask("LightGCN", "base", "without_hints")
    assert (found["utility"] == found["log_p"]).all()


@pytest.mark.parametrize("backbone", ["LightGCN", "SASRec"])
@pytest.mark.parametrize("fit", ["base", "augmented"])
def test_llm_2_is_told_the_similar_user_and_the_order_of_the_fit_it_is_asked_about(asked, backbone, fit):
    """Of that very fit, and the similar user's training history."""
    asked.ask(backbone, fit, "with_hints")
    assert asked.prompts == expected_lists(asked, fit, ("valid", "test"), fit, backbone=backbone)


def expected_ratings(fit, parts, hinted, users, titles):
    """All rating prompts of some users' cases; validation and test share a history, and so a prompt."""
    out = {}
    for part in parts:
        for user in users:
            n = N_TRAIN[user]
            text, branches = rating_prompt(user, n, [SEQUENCES[user][n + (part == "test")]], fit, hinted, titles)
            key = f"rating-{user}-{n}"
            out[key] = (text, [*out.get(key, (text, []))[1], *branches])
    return out


@pytest.mark.parametrize("llm", LLMS)
def test_ratings_are_asked_of_the_drawn_users_and_hints_are_told_to_llm_2_alone(asked, llm):
    found = asked.ask("DeepFM", "augmented", llm)
    users = draw_users(3, 8, rng("measured users"))
    parts, titles = (("valid",), TITLES) if llm == "untuned" else (("valid", "test"), TOLD)
    hinted = "augmented" if llm == "with_hints" else None
    assert asked.prompts == expected_ratings("augmented", parts, hinted, users, titles)
    assert set(found["part"]) == set(parts)
    for row in found.itertuples():
        assert row.backbone == pytest.approx(min(predicted(row.user, row.item, "augmented"), 5), abs=1e-5)
        assert row.rating == rating_of(row.user, SEQUENCES[row.user].index(row.item))
    assert set(found.loc[found["part"] == "valid", "user"]) == set(users)


def test_another_way_of_ranking_has_a_file_of_its_own(asked):
    found = asked.ask("LightGCN", "base", "untuned", "--way", "yes_no", name="ways/LightGCN-yes_no")
    assert len(found) == 4 * len(asked.prompts) and not asked.run.has(f"scores/LightGCN-base-untuned-s{SEED}.parquet")
    assert all("Would this viewer choose it next?" in text for _, texts in asked.prompts.values() for text in texts)


def test_asked_again_nothing_is_read_again_but_another_checkpoint_is_asked_anew(asked):
    asked.ask("LightGCN", "base", "without_hints")
    asked.ask("LightGCN", "base", "without_hints")
    assert len(asked.loaded[0].read) > 0 and asked.loaded[1].read == []
