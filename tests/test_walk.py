"""The notebooks' own code on a small run, with an LLM whose every score is known: what a backbone is fitted on, what
LLM' and LLM'' are tuned on, who makes the augmented data, and on which part the weights are chosen."""

import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from standins import (
    BEFORE_WINDOW,
    N_TRAIN,
    PRESET,
    SEED,
    SEQUENCES,
    SIMILAR,
    TITLES,
    TOLD,
    WINDOW,
    Characters,
    list_prompt,
    lists,
    notebook,
    open_run,
    predicted,
    rating_of,
    rating_prompt,
    score_row,
    script,
)
from torch import float32, nn, ones, zeros

from llama4rec_core import augmentation, presets, tables
from llama4rec_core.__main__ import main
from llama4rec_core.aggregation import list_log_likelihood
from llama4rec_core.backbones import fit as fitting
from llama4rec_core.backbones.predict import Predictions, read_predictions
from llama4rec_core.data.prepared import prepare
from llama4rec_core.files import read_json, write_frame, write_json
from llama4rec_core.llm import batches, cost, finetune, model, score
from llama4rec_core.run import draw_users, rng
from llama4rec_core.variants import asked

USERS = range(8)


@pytest.fixture
def small(results, tmp_path):
    """The run, what is prepared, and the preset's file."""
    return *open_run(tmp_path), str(tmp_path / "small.yaml")


# --- 02: what a backbone is fitted on ---------------------------------------------------------------------------------


class Falling(nn.Module):
    """Item 0 is everyone's best, then 1, and so on; ratings are 3. It remembers what embeddings were read after."""

    def scores(self, users, histories):
        return -ones(len(users), 16).cumsum(1)

    def rate(self, users, items):
        return 3 * ones(len(users))

    def user_embeddings(self, histories):
        self.read = [list(history) for history in histories]
        return zeros(8, 2)


def fitted_on(small, monkeypatch, backbone, fit):
    """Run notebook 02; what it handed to the fitting, and the predictions that it left."""
    run, _, preset = small
    folder = run.path(f"backbones/{backbone}-s{SEED}/{fit}")
    shutil.rmtree(folder, ignore_errors=True)
    handed = {}

    def fit_backbone(name, data, valid, seed, settings):
        handed.update(name=name, data=data, valid=valid, seed=seed, module=Falling())
        return fitting.Fitted(name, handed["module"], pd.DataFrame({"epoch": [1]}))

    monkeypatch.setattr(fitting, "fit", fit_backbone)
    notebook("02", monkeypatch, preset=preset, backbone=backbone, seed=SEED, fit=fit)
    assert (handed["name"], handed["seed"]) == (backbone, SEED)
    return handed, read_predictions(folder)


def items(frame, users=USERS):
    return [frame.loc[frame["user"] == user, "item"].tolist() for user in users]


@pytest.mark.parametrize("backbone", ["LightGCN", "SASRec", "DeepFM"])
def test_a_base_fit_sees_the_training_part_and_predicts_validation_and_test(small, monkeypatch, backbone):
    handed, known = fitted_on(small, monkeypatch, backbone, "base")
    data = handed["data"]
    assert [each.tolist() for each in data.histories] == [SEQUENCES[user][: N_TRAIN[user]] for user in USERS]
    assert data.triples is None and data.insertions is None
    assert items(handed["valid"]) == [[SEQUENCES[user][N_TRAIN[user]]] for user in USERS]
    assert known.cases["part"].tolist() == ["valid"] * 8 + ["test"] * 8
    assert handed["module"].read == [SEQUENCES[user][: N_TRAIN[user]] for user in USERS]


@pytest.mark.parametrize("backbone", ["LightGCN", "SASRec", "DeepFM"])
def test_an_out_of_fold_fit_sees_no_window_not_even_to_stop_early_and_predicts_the_windows(
    small, monkeypatch, backbone
):
    """Users 1 and 3 have no window: they give no case, and stop early on their last training item."""
    handed, known = fitted_on(small, monkeypatch, backbone, "out_of_fold")
    assert [each.tolist() for each in handed["data"].histories] == [
        SEQUENCES[user][: BEFORE_WINDOW[user] - 1] for user in USERS
    ]
    assert items(handed["valid"]) == [[SEQUENCES[user][BEFORE_WINDOW[user] - 1]] for user in USERS]
    assert items(known.cases) == [SEQUENCES[user][BEFORE_WINDOW[user] : N_TRAIN[user]] for user in USERS]
    assert set(known.cases["part"]) == {"window"}


def test_an_augmented_fit_sees_the_training_part_and_what_the_llm_made_for_its_task(small, monkeypatch):
    run = small[0]
    pairs = pd.DataFrame({"user": [1, 2], "preferred": [0, 5], "other": [6, 7], "agreed": [True, False]})
    pairs = pairs.assign(margin=1.0, margin_swapped=1.0)
    made = pd.DataFrame({"user": [3], "item": [9], "position": [2]})
    about = pd.DataFrame({"item": [2], "director": ["unknown"], "star": ["None"]})  # a name, and no missing value
    for name, frame in (("pairs", pairs), ("insertions", made), ("attributes", about)):
        write_frame(run.path(f"augmentation/{name}-s{SEED}.csv"), frame)
    handed, _ = fitted_on(small, monkeypatch, "LightGCN", "augmented")
    assert handed["data"].triples.tolist() == [[1, 0, 6]]
    handed, known = fitted_on(small, monkeypatch, "SASRec", "augmented")
    assert handed["data"].insertions.tolist() == [[3, 9, 2]] and handed["data"].triples is None
    assert [each.tolist() for each in handed["data"].histories] == [SEQUENCES[user][: N_TRAIN[user]] for user in USERS]
    assert known.cases["part"].tolist() == ["valid"] * 8 + ["test"] * 8
    handed, _ = fitted_on(small, monkeypatch, "DeepFM", "augmented")
    features = handed["data"].item_features
    assert features["star"].tolist() == ["", "", "None", *[""] * 13] and not features["director"].any()


def test_pairs_under_the_preset_s_margin_are_no_triples(results, tmp_path, monkeypatch):
    run, ready = open_run(tmp_path, PRESET.replace("pairs: 2,", "pairs: 2, margin: 1.5,"))
    pairs = pd.DataFrame({"user": [1, 2], "preferred": [0, 5], "other": [6, 7], "agreed": True, "margin": [1.0, 2.0]})
    write_frame(run.path(f"augmentation/pairs-s{SEED}.csv"), pairs.assign(margin_swapped=[9.0, 2.0]))
    handed, _ = fitted_on((run, ready, str(tmp_path / "small.yaml")), monkeypatch, "LightGCN", "augmented")
    assert handed["data"].triples.tolist() == [[2, 5, 7]]


def fitted_on_a_control(small, monkeypatch, kind, made, control):
    """Write what the LLM made, run the script that makes the control, then notebook 02: the training data."""
    run, _, preset = small
    write_frame(run.path(f"augmentation/{kind}-s{SEED}.csv"), made)
    monkeypatch.setattr(sys, "argv", ["control_augmentation.py", preset, kind, control, str(SEED)])
    script("control_augmentation").main()
    backbone = {"pairs": "LightGCN", "insertions": "SASRec", "attributes": "DeepFM"}[kind]
    handed, known = fitted_on(small, monkeypatch, backbone, control)
    assert known.cases["part"].tolist() == ["valid"] * 8 + ["test"] * 8
    return handed["data"]


def rarest(ready, user, count=2):
    """What an LLM against popularity would choose, and how popular each item is."""
    popular = augmentation.training_popularity(ready.histories)
    free = sorted(set(range(16)) - set(SEQUENCES[user][: N_TRAIN[user]]), key=lambda item: popular[item])
    return free[:count], popular, free


def test_control_fits_see_as_many_triples_that_no_llm_made(small, monkeypatch):
    ready = small[1]
    rows = [(user, *rarest(ready, user)[0], True, 1.0, 1.0) for user in USERS]
    made = pd.DataFrame(rows, columns=["user", "preferred", "other", "agreed", "margin", "margin_swapped"])
    random, popular = (
        fitted_on_a_control(small, monkeypatch, "pairs", made, fit).triples for fit in ("random", "popular")
    )
    assert random[:, 0].tolist() == popular[:, 0].tolist() == list(USERS)
    assert all({a, b} <= set(rarest(ready, user)[2]) for user, a, b in random.tolist())
    assert random[:, 1:].tolist() != made[["preferred", "other"]].to_numpy().tolist()
    counts = rarest(ready, 0)[1]
    assert [{a, b} for _, a, b in popular.tolist()] == [{*rarest(ready, user)[0]} for user in USERS]
    assert (counts[popular[:, 1]] >= counts[popular[:, 2]]).all()


def test_control_fits_see_as_many_insertions_that_no_llm_made(small, monkeypatch):
    ready = small[1]
    item = [rarest(ready, user)[0][0] for user in USERS]
    made = pd.DataFrame({"user": USERS, "item": item, "position": 1, "among": 16, "advantage": 1.0})
    random, popular = (
        fitted_on_a_control(small, monkeypatch, "insertions", made, fit).insertions for fit in ("random", "popular")
    )
    for rows in (random, popular):
        assert rows[:, 0].tolist() == list(USERS) and rows[:, 2].tolist() == [1] * 8 and rows[:, 1].tolist() != item
        assert all(item in rarest(ready, user)[2] for user, item, _ in rows.tolist())
    counts = rarest(ready, 0)[1]
    assert counts[popular[:, 1]].tolist() == [max(counts[rarest(ready, user)[2]]) for user in USERS]


def test_a_control_fit_sees_the_llm_s_attributes_dealt_anew(small, monkeypatch):
    directors = [*"ABCDEFGHIJKLMNO", "unknown"]
    made = pd.DataFrame({"item": range(16), "title": TITLES, "director": directors, "star": "X", "defects": ""})
    found = fitted_on_a_control(small, monkeypatch, "attributes", made, "random").item_features["director"].tolist()
    assert sorted(found) == ["", *directors[:-1]] and found != [*directors[:-1], ""]


# --- 03 and 05: what LLM' and LLM'' are tuned on ----------------------------------------------------------------------


@pytest.fixture
def tunings(monkeypatch):
    """What was tuned: the LLM, its examples, the settings, the folder; and all that was loaded before it."""
    handed, loaded = [], []

    def load(name, checkpoint=None, dtype=None, layers=None, seed=None):
        loaded.append((checkpoint, dtype, layers, seed))
        return Characters(checkpoint=str(checkpoint))

    def tune(llm, rows, settings, learning_rate, folder, seed):
        chosen = [each for row in rows for each in row]
        handed.append(SimpleNamespace(llm=llm, rows=rows, chosen=chosen, rate=learning_rate, folder=folder, seed=seed))
        handed[-1].loaded = loaded.copy()
        loaded.clear()
        write_json(folder / "tuning.json", {"llm": {}, "steps": 1, "rows": len(rows)})
        write_frame(folder / "curve.csv", pd.DataFrame({"step": [1], "loss": [1.0]}))

    monkeypatch.setattr(model, "load", load)
    monkeypatch.setattr(finetune, "tune", tune)
    monkeypatch.setattr(score, "score_row", score_row)
    return handed


def tuned_on(preset, tunings, checkpoint):
    """As the workflow asks for it."""
    assert main(["tune", str(preset), checkpoint, str(SEED)]) == 0
    return tunings[-1]


def texts(tuning):
    llm = tuning.llm
    return {each.prompt.key: (llm.text(each.prompt), llm.branches(each.prompt)) for each in tuning.chosen}


def tokens_of(chosen):
    return [(each.prompt.key, each.prompt.prefix, [b.tokens for b in each.prompt.branches]) for each in chosen]


def before_window(user):
    return [(SEQUENCES[user][t], rating_of(user, t)) for t in range(BEFORE_WINDOW[user])]


def test_the_trunk_reads_what_comes_before_the_windows_without_hints_and_learns_each_title_or_rating(
    small, monkeypatch, tunings
):
    run, ready, preset = small
    trunk = tuned_on(preset, tunings, "trunk")
    assert trunk.folder == run.path(f"llm/trunk-s{SEED}") and trunk.seed == SEED
    assert trunk.loaded == [(None, float32, run.preset.tuning.layers, None)]  # from the LLM's own weights
    assert trunk.rate == run.preset.tuning.trunk_learning_rate != run.preset.tuning.learning_rate
    read = {user: set() for user in USERS}
    kinds = set()
    for example in trunk.chosen:
        assert example.prompt.branches == example.choice_sets == ()
        user, end = map(int, example.prompt.key.split("-")[-2:])
        begin, *lines = trunk.llm.text(example.prompt).splitlines()
        told = before_window(user)[end - len(lines) : end]
        rated = begin == "Ratings from 1 to 5 that this viewer gave, oldest first:"
        assert rated or begin == "Films this viewer watched, oldest first:"
        assert lines == [TOLD[item] + (f": {value}" if rated else "") for item, value in told] and len(lines) <= 3
        learnt = "".join(chr(example.prompt.prefix[at]) for at, _ in example.prompt.learn)
        assert learnt == "".join(str(value) if rated else TOLD[item] for item, value in told)
        read[user] |= {item for item, _ in told}
        kinds.add(rated)
    assert read == {user: {item for item, _ in before_window(user)} for user in USERS} and kinds == {True, False}


def test_a_trunk_of_random_weights_is_drawn_by_the_seed(results, tmp_path, monkeypatch, tunings):
    open_run(tmp_path, PRESET + "tuning: {start: random, layers: 2}")
    trunk = tuned_on(tmp_path / "small.yaml", tunings, "trunk")
    assert trunk.loaded == [(None, float32, 2, SEED)]


def test_llm_1_is_tuned_without_any_hint_and_llm_2_on_the_same_examples_with_the_out_of_fold_backbone_s(
    small, monkeypatch, tunings
):
    run, ready, preset = small
    trunk = tuned_on(preset, tunings, "trunk").folder
    plain, hinted = (tuned_on(preset, tunings, name) for name in ("without_hints", "with_hints"))
    assert plain.folder == run.path(f"llm/without_hints-s{SEED}")
    assert hinted.folder == run.path(f"llm/with_hints-s{SEED}")
    for each in (plain, hinted):  # both go on from the trunk's weights, in full precision
        assert each.loaded == [(trunk, float32, None, None)] and each.llm.checkpoint_sha256 == str(trunk)
        assert each.seed == SEED and each.rate == run.preset.tuning.learning_rate
    keys, again = ([[each.prompt.key for each in row] for row in tuning.rows] for tuning in (plain, hinted))
    assert keys == again and len(keys) > 1  # a row is a step
    assert [each.choice_sets for each in plain.chosen] == [each.choice_sets for each in hinted.chosen]
    for number, variable, told in (("03", "packed", plain), ("05", "rows_with", hinted)):  # what the notebooks show
        shown = notebook(number, monkeypatch, preset=preset, seed=SEED)[variable]
        assert len(shown) == len(told.rows) and tokens_of(sum(shown, [])) == tokens_of(told.chosen)

    expected = {None: {}, "out_of_fold": {}}
    for hint, found in expected.items():
        for name, task in (("LightGCN", "direct"), ("SASRec", "sequential")):
            known = read_predictions(run.path(f"backbones/{name}-s{SEED}/out_of_fold"))
            for row, candidates in zip(known.cases.itertuples(), known.items.tolist(), strict=True):
                if row.item in candidates:
                    found[f"{task}-window-{row.user}-{row.prefix}"] = list_prompt(row, candidates, hint)
        for user in np.flatnonzero(WINDOW):
            prefix = BEFORE_WINDOW[user]
            targets = SEQUENCES[user][prefix : N_TRAIN[user]]
            found[f"rating-{user}-{prefix}"] = rating_prompt(user, prefix, targets, "out_of_fold", hint)
    kinds = ("direct", "sequential", "rating")
    without, with_hints = (
        {key: text for key, text in texts(tuning).items() if key.startswith(kinds)} for tuning in (plain, hinted)
    )
    assert without == expected[None] and with_hints == expected["out_of_fold"] and len(without) >= 12
    pairs = [key for key in texts(plain) if key.startswith("pair")]
    targets = {f"pair-{user}-{item}" for user in USERS for item in SEQUENCES[user][BEFORE_WINDOW[user] : N_TRAIN[user]]}
    assert targets - set(pairs) == {"pair-5-14"}  # user 7 is asked the very same
    assert set(pairs) < targets
    assert all(texts(plain)[key] == texts(hinted)[key] for key in pairs)
    following = [key for key in texts(plain) if key.startswith("next")]
    assert sorted(following) == [f"next-{user}-{BEFORE_WINDOW[user]}" for user in np.flatnonzero(WINDOW)]
    for key in following:
        (told, _), (hinted_told, _) = texts(plain)[key], texts(hinted)[key]
        assert hinted_told.endswith(told) and "similar taste" in hinted_told and "suggests" in hinted_told
        assert "similar taste" not in told and "suggests" not in told


# --- 04: who makes the augmented data ---------------------------------------------------------------------------------


def test_llm_1_makes_pairs_and_insertions_by_what_it_finds_likeliest_and_the_untuned_llm_attributes(small, monkeypatch):
    run, ready, preset = small
    loaded, writers = {}, []

    def load(name, checkpoint=None):
        """An LLM that likes the alphabet's end."""
        loaded[checkpoint] = Characters(lambda prefix, text: float(ord(text.strip()[-1])))
        return loaded[checkpoint]

    def generate(llm, prefix, tails, max_tokens):
        writers.append(llm)
        return [f" directed by {llm.decode(tail)[5]}; starring nobody" for tail in tails]

    monkeypatch.setattr(model, "load", load)
    monkeypatch.setattr(batches, "score_row", score_row)
    monkeypatch.setattr(augmentation, "generate", generate)
    write_json(run.path(f"llm/without_hints-s{SEED}/tuning.json"), {})
    notebook("04", monkeypatch, preset=preset, seed=SEED)
    llm, untuned = loaded.pop(run.path(f"llm/without_hints-s{SEED}")), loaded.pop(None)
    assert (
        not loaded and untuned.read == [] and all(writer is untuned for writer in writers)
    )  # tuning is of no use to P3

    pairs = pd.read_csv(run.path(f"augmentation/pairs-s{SEED}.csv"))
    assert pairs["user"].tolist() == np.repeat(draw_users(4, 8, rng("P1 users", SEED)), 2).tolist()
    assert (pairs["preferred"] > pairs["other"]).all() and pairs["agreed"].all()
    made = pd.read_csv(run.path(f"augmentation/insertions-s{SEED}.csv"))
    assert made["user"].tolist() == draw_users(4, 8, rng("P2 users", SEED))
    draws = rng("P2 candidates", SEED)
    drawn = [augmentation.unseen(ready.histories, user, 3, draws) for user in made["user"]]
    assert made["item"].tolist() == [max(each) for each in drawn]
    assert made["position"].tolist() == [int(draws.integers(0, N_TRAIN[user] + 1)) for user in made["user"]]
    about = pd.read_csv(run.path(f"augmentation/attributes-s{SEED}.csv"))
    assert about["item"].tolist() == [0, 1, 2, 3, 4] and about["director"].tolist() == list("ABCDE")
    assert about["star"].tolist() == ["unknown"] * 5 and set(about["defects"]) == {"star too common"}
    text = "".join(llm.text(prompt) for prompt in llm.read)
    assert text and "similar taste" not in text and "suggests" not in text


# --- 06: on which part weights are chosen, and what is measured -------------------------------------------------------


def gain(place):
    """NDCG@5 of a target at a place that counts from 0."""
    return 1 / np.log2(place + 2)


# at which place the target stands for each fit and each opinion, on each part; 0 is the best and 3 the last
BACKBONE = {"base": {"valid": 2, "test": 1}, "augmented": {"valid": 3, "test": 0}}
RIGHT_ON_VALIDATION = {"valid": 0, "test": 3}
RIGHT_ON_TEST = {"valid": 3, "test": 0}
OTHERS = {
    "untuned": {"valid": 3},
    "without_hints": {"valid": 2, "test": 2},
    "Popularity": {"valid": 3, "test": 0},
    "ItemKNN": {"valid": 0, "test": 2},
    "RecentItemKNN": {"valid": 1, "test": 0},
    "EASE": {"valid": 3, "test": 3},
    ("base", "with_hints"): {"valid": 0, "test": 2},
    ("augmented", "without_hints"): {"valid": 0, "test": 1},
}


def with_target_at(place, target, candidates):
    """Utilities of a list's candidates by which its target comes to `place`."""
    order = [item for item in candidates if item != target]
    order.insert(place, target)
    return [-1.0 - order.index(item) for item in candidates]


def given_lists(run, ready, llm, backbone=BACKBONE, test_target=None):
    """Write every fit's lists and every opinion. llm: the places of LLM''; test_target: another item is chosen."""
    for fit, places in backbone.items():
        folder = run.path(f"backbones/LightGCN-s{SEED}/{fit}")
        rows = read_predictions(folder).cases
        if test_target is not None:
            rows = rows.assign(item=rows["item"].where(rows["part"] != "test", (rows["item"] + test_target) % 16))
        found = lists(rows, lambda row, places=places: places[row.part])
        scores = np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (len(rows), 1))
        Predictions(rows, found, scores, None, np.eye(8, dtype=np.float32)).write(folder)
    for fit, opinion in asked(run.preset.rows, "direct"):
        places, out = OTHERS.get((fit, opinion)) or OTHERS.get(opinion, llm), []
        known = read_predictions(run.path(f"backbones/LightGCN-s{SEED}/{fit}"))
        for row, candidates in zip(known.cases.itertuples(), known.items.tolist(), strict=True):
            if row.part in places:
                utilities = with_target_at(places[row.part], row.item, candidates)
                key = f"{row.part}-{row.user}-{row.prefix}"
                out += [(key, item, value) for item, value in zip(candidates, utilities, strict=True)]
        frame = pd.DataFrame(out, columns=["key", "item", "utility"])
        write_frame(run.path(f"scores/LightGCN-{fit}-{opinion}-s{SEED}.parquet"), frame)


def measured(small, monkeypatch, backbone="LightGCN"):
    """Run notebook 06: what was chosen, the metrics of every user, the grid, and each judge alone."""
    run, _, preset = small
    folder = run.path(f"rows/{backbone}-s{SEED}")
    shutil.rmtree(folder, ignore_errors=True)
    notebook("06", monkeypatch, preset=preset, backbone=backbone, seed=SEED)
    per_user = pd.read_parquet(folder / "per_user.parquet")
    return (
        read_json(folder / "choice.json"),
        per_user,
        pd.read_csv(folder / "grid.csv"),
        pd.read_csv(folder / "within.csv"),
    )


def test_weights_that_are_best_on_validation_are_chosen_though_others_are_best_on_test(small, monkeypatch):
    run, ready, _ = small
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    choice, per_user, _, _ = measured(small, monkeypatch)
    chosen = choice["rows"]["Llama4Rec"]
    assert chosen["alpha_1"] >= 0.7 and chosen["validation"] == pytest.approx(1)
    assert chosen["gain"] == pytest.approx(8 * np.log(4))  # from chance to certain
    ours = per_user[per_user["row"] == "Llama4Rec"]
    assert ours["NDCG@5"].to_numpy() == pytest.approx([gain(3)] * 8)  # though M_c' alone would have had 1
    assert (ours["alpha_1"] == chosen["alpha_1"]).all() and (ours["alpha_2"] == chosen["alpha_2"]).all()
    assert (ours["mode"] == "positions").all() and (ours["cases"] == 1).all()

    given_lists(run, ready, RIGHT_ON_TEST)
    choice, per_user, _, _ = measured(small, monkeypatch)
    chosen = choice["rows"]["Llama4Rec"]
    assert (chosen["alpha_1"], chosen["gain"]) == (0, 0) and chosen["validation"] == pytest.approx(gain(3))
    ours = per_user[per_user["row"] == "Llama4Rec"]
    assert ours["NDCG@5"].to_numpy() == pytest.approx([1] * 8)  # a weight of 0: the own order of M_c'


def weights(alpha_1, alpha_2):
    """Equations 5 and 7 by hand."""
    l_u = np.log(np.array(N_TRAIN) + 1)
    return np.maximum((l_u.max() - l_u) / (l_u.max() - l_u.min()), alpha_2) * alpha_1


def test_the_grid_is_the_likelihood_of_validation_targets_in_the_lists_of_the_augmented_backbone(small, monkeypatch):
    """The target is fourth for M_c' and second for LLM'': utilities -4 and -2."""
    run, ready, _ = small
    given_lists(run, ready, {"valid": 1, "test": 2})
    grid = measured(small, monkeypatch)[2]
    value = grid[grid["row"] == "Llama4Rec"].set_index(["alpha_1", "alpha_2"])["value"]
    assert len(value) == 30 and (value[0.0] == 0).all()
    for pair in ((0.9, 0.9), (0.5, 0.1), (0.3, 0.7)):
        w = weights(*pair)[:, None]
        utility = w * np.array([-1, -3, -4, -2]) + (1 - w) * np.array([-1, -2, -3, -4])
        expected = list_log_likelihood(utility, np.full(8, 3)).sum() + 8 * np.log(4)  # M_c' alone: as good as chance
        assert value[pair] == pytest.approx(expected, abs=1e-6)


def test_every_blended_row_has_weights_of_its_own(small, monkeypatch):
    run, ready, _ = small
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    choice, per_user, grid, _ = measured(small, monkeypatch)
    rows, value = choice["rows"], per_user.set_index(["row", "user"])["NDCG@5"]
    blended = ["Llama4Rec", "w/o AA", "Base + popularity", "Base + item-kNN", "Base + recent item-kNN", "Base + EASE"]
    assert list(rows) == ["Base", "IFT", *blended, "stack", "stack + LLM"]
    assert grid["row"].unique().tolist() == blended
    assert rows["w/o AA"]["alpha_2"] == 1 and rows["w/o AA"]["alpha_1"] >= 0.5
    for name in ("Base + popularity", "Base + EASE"):  # wrong on validation: the backbone alone, where it is second
        assert rows[name]["alpha_1"] == 0 and rows[name]["validation"] == pytest.approx(gain(2))
        assert value[name].to_numpy() == pytest.approx([gain(1)] * 8)
    knn, recent = "Base + item-kNN", "Base + recent item-kNN"
    assert rows[knn]["alpha_1"] >= 0.5 and rows[knn]["gain"] == pytest.approx(8 * np.log(4))  # right on validation
    assert value[knn].to_numpy() == pytest.approx([gain(2)] * 8)
    assert 0 < grid.loc[grid["row"] == recent, "value"].max() < 1  # second, where the backbone has it third:
    assert rows[recent]["alpha_1"] == 0 and value[recent].to_numpy() == pytest.approx([gain(1)] * 8)  # less than a nat


def test_without_one_part_the_other_s_llm_is_asked_about_the_other_s_lists(results, tmp_path, monkeypatch):
    """w/o DA: LLM'' about the lists of M_c. w/o PA: LLM' about those of M_c'. All are right on validation, and at test
    each has the target at a place of its own."""
    run, ready = open_run(tmp_path, PRESET + "rows: [Base, IFT, Llama4Rec, w/o DA, w/o PA]")
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    choice, per_user, _, within = measured((run, ready, str(tmp_path / "small.yaml")), monkeypatch)
    value = per_user.set_index(["row", "user"])["NDCG@5"]
    for row, place in (("Llama4Rec", 3), ("w/o DA", 2), ("w/o PA", 1)):
        assert choice["rows"][row]["alpha_1"] >= 0.5 and value[row].to_numpy() == pytest.approx([gain(place)] * 8)
    judges = within.set_index("name")["value"]
    assert judges["LLM''"] == judges["LLM' (augmented)"] == judges["LLM'' (augmented)"] == pytest.approx(1)


@pytest.mark.parametrize("more", ["", ", w/o DA"])
def test_the_stack_joins_what_is_said_about_the_lists_of_m_c_and_only_one_of_both_has_an_llm(
    results, tmp_path, monkeypatch, more
):
    """M_c and popularity have the target third of four on validation, so the stack turns their order round; at test it
    is second, and so comes third. The LLM is right: LLM', also where LLM'' was asked about M_c's lists."""
    run, ready = open_run(tmp_path, PRESET + f"rows: [Base, IFT, Llama4Rec, Base + popularity{more}]")
    monkeypatch.setitem(OTHERS, "Popularity", BACKBONE["base"])
    monkeypatch.setitem(OTHERS, ("base", "without_hints"), {"valid": 0, "test": 0})
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    choice, per_user, _, _ = measured((run, ready, str(tmp_path / "small.yaml")), monkeypatch)
    rows, value = choice["rows"], per_user.set_index(["row", "user"])["NDCG@5"]
    assert rows["stack"] == {"validation": pytest.approx(gain(1))}
    assert value["stack"].to_numpy() == pytest.approx([gain(2)] * 8)
    assert rows["stack + LLM"] == {"validation": pytest.approx(1)}
    assert value["stack + LLM"].to_numpy() == pytest.approx([1] * 8)


def test_what_users_chose_at_test_changes_no_weight(small, monkeypatch):
    run, ready, _ = small
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    before = measured(small, monkeypatch)
    backbone = {"augmented": {"valid": 3, "test": 1}, "base": {"valid": 2, "test": 3}}
    given_lists(run, ready, RIGHT_ON_VALIDATION | {"test": 0}, backbone, test_target=5)
    after = measured(small, monkeypatch)
    assert before[0] == after[0] and before[2].equals(after[2]) and before[3].equals(after[3])
    assert not before[1]["NDCG@5"].equals(after[1]["NDCG@5"])


def test_base_is_the_backbone_s_order_and_ift_the_order_of_llm_1_about_the_base_lists(small, monkeypatch):
    run, ready, _ = small
    given_lists(run, ready, RIGHT_ON_VALIDATION)
    choice, per_user, _, within = measured(small, monkeypatch)
    value = per_user.set_index(["row", "user"])["NDCG@5"]
    assert value["Base"].to_numpy() == pytest.approx([gain(1)] * 8)
    assert value["IFT"].to_numpy() == pytest.approx([gain(2)] * 8)
    others = per_user[per_user["row"].isin(["Base", "IFT"])]
    assert others[["alpha_1", "alpha_2", "mode", "changed"]].isna().all(axis=None)
    assert choice["rows"]["Base"] == {"validation": pytest.approx(gain(2))} == choice["rows"]["IFT"]
    assert choice["compared_with"] == "Base" and choice["metric"] == "NDCG@5"
    judges = within.set_index("name")["value"]
    assert judges.round(6).to_dict() == {
        "random": round(np.mean([gain(place) for place in range(4)]), 6),
        "backbone": round(gain(2), 6),
        "untuned": round(gain(3), 6),
        "backbone, lists of untuned": round(gain(2), 6),
        "LLM'": round(gain(2), 6),
        "Popularity": round(gain(3), 6),
        "ItemKNN": 1.0,
        "RecentItemKNN": round(gain(1), 6),
        "EASE": round(gain(3), 6),
        "backbone (augmented)": round(gain(3), 6),
        "LLM'' (augmented)": 1.0,
    }
    about = per_user[["dataset", "backbone", "seed"]].drop_duplicates().to_numpy().tolist()
    assert about == [["small", "LightGCN", SEED]]
    look = read_json(run.path(f"rows/LightGCN-s{SEED}/look.json"))
    assert (look["what"], look["why"]) == (f"LightGCN-s{SEED}", "rows of the tables")


def test_a_changed_top_is_counted_against_the_unaugmented_backbone(small, monkeypatch):
    run, ready, _ = small
    given_lists(run, ready, RIGHT_ON_TEST)
    ours = measured(small, monkeypatch)[1].query("row == 'Llama4Rec'")
    assert ours["changed"].tolist() == [1.0] * 8  # a weight of 0, but another list
    given_lists(run, ready, RIGHT_ON_TEST, BACKBONE | {"augmented": {"valid": 2, "test": 1}})
    ours = measured(small, monkeypatch)[1].query("row == 'Llama4Rec'")
    assert ours["changed"].tolist() == [0.0] * 8


def given_ratings(run, right_on):
    """Base ratings are 1 too high, M_c' is right on test and 2 too high on validation. LLM' is 0.5 too low, the biases
    1 too high; LLM'' is right on the parts in `right_on` and 3 too high on others."""
    rows = read_predictions(run.path(f"backbones/DeepFM-s{SEED}/base")).cases
    for fit, opinion in asked(run.preset.rows, "rating"):
        of = rows[rows["part"] == "valid"] if opinion == "untuned" else rows
        off = {"untuned": -2.0, "without_hints": -0.5, "Bias": 1.0}.get(opinion)
        said = 2 + (np.where(of["part"].isin(right_on), 0.0, 3.0) if off is None else off)
        backbone = 2 + (1.0 if fit == "base" else np.where(of["part"] == "test", 0.0, 2.0))
        frame = of[["part", "user", "item"]].assign(rating=2.0, backbone=backbone, expected=said, likeliest=1.0)
        write_frame(run.path(f"scores/DeepFM-{fit}-{opinion}-s{SEED}.parquet"), frame)


def test_for_ratings_too_weights_are_chosen_on_validation(small, monkeypatch):
    run = small[0]
    given_ratings(run, ("valid",))
    choice, per_user, grid, within = measured(small, monkeypatch, "DeepFM")
    rows, chosen = choice["rows"], choice["rows"]["Llama4Rec"]
    assert list(rows) == ["Base", "IFT", "Llama4Rec", "w/o AA", "Base + biases", "stack", "stack + LLM"]
    assert choice["metric"] == "RMSE"
    assert (chosen["alpha_1"], chosen["alpha_2"]) == (0.9, 0.9)
    w = weights(0.9, 0.9)
    mean = np.mean((2 * (1 - w)) ** 2)
    assert chosen["validation"] == pytest.approx(np.sqrt(mean)) and chosen["gain"] == pytest.approx(
        4 * np.log(4 / mean)
    )
    value = grid[grid["row"] == "Llama4Rec"].set_index(["alpha_1", "alpha_2"])["value"]
    assert value[0.9, 0.9] == pytest.approx(chosen["gain"]) and value[0.0, 0.1] == 0
    error = per_user.set_index(["row", "user"])["MSE"]
    assert error["Base"].to_numpy() == pytest.approx([1.0] * 8) and error["IFT"].to_numpy() == pytest.approx([0.25] * 8)
    assert error["Llama4Rec"].to_numpy() == pytest.approx(9 * w**2)  # at test LLM'' is 3 too high, M_c' is right
    assert rows["w/o AA"]["alpha_2"] == 1 and error["w/o AA"].to_numpy() == pytest.approx([9 * 0.9**2] * 8)
    assert rows["Base + biases"]["alpha_1"] == 0  # the backbone's own mistakes
    assert rows["Base"]["validation"] == pytest.approx(1) and rows["IFT"]["validation"] == pytest.approx(0.5)
    assert per_user["changed"].isna().all() and (per_user["cases"] == 1).all()
    judges = within.set_index("name")["value"].round(6).to_dict()
    assert judges == {
        "backbone": 1.0, "untuned": 1.0, "backbone, lists of untuned": 1.0,  # "untuned" says 0; the scale begins at 1
        "LLM'": 0.5, "Bias": 1.0,
        "backbone (augmented)": 2.0, "LLM'' (augmented)": 0.0,
    }  # fmt: skip

    given_ratings(run, ("test",))
    choice, per_user, _, _ = measured(small, monkeypatch, "DeepFM")
    assert choice["rows"]["Llama4Rec"]["alpha_1"] == 0


# --- 09: what a reader of the tables is told --------------------------------------------------------------------------


def test_the_tables_hold_every_row_against_base_and_llama4rec_against_the_others(small, monkeypatch):
    run, _, preset = small
    (seed,) = run.preset.seeds
    hits = {"Base": [0, 3], "IFT": [1, 3], "Llama4Rec": range(6), "w/o AA": range(4), "Base + EASE": range(6)}
    errors = {"Base": 4.0, "IFT": 9.0, "Llama4Rec": 1.0}
    for backbone in ("LightGCN", "SASRec", "DeepFM"):
        frames = []
        for row, found in (errors if backbone == "DeepFM" else hits).items():
            frame = pd.DataFrame({"user": USERS, "seed": seed, "row": row, "cases": 1})
            if backbone == "DeepFM":
                frame = frame.assign(MSE=found, MAE=found**0.5)
            else:
                hit = frame["user"].isin(found).astype(float)
                frame = frame.assign(**{name: hit for name in ("HR@3", "NDCG@3", "HR@5", "NDCG@5")})
            frames.append(frame.assign(dataset="small", protocol="leave-one-out", backbone=backbone))
        write_frame(run.path(f"rows/{backbone}-s{seed}/per_user.parquet"), pd.concat(frames))
        write_json(run.path(f"rows/{backbone}-s{seed}/choice.json"), {"alpha_1": 0.3})
    for llm in ("trunk", "without_hints", "with_hints"):
        write_json(run.path(f"llm/{llm}-s{seed}/tuning.json"), {"llm": {"body": 10, "head": 2}, "tokens": 5})
    spent = {"prompts_sent": 2, "tokens_read": 30, "tokens_written": 0, "logits": 4, "seconds": 1.0}
    spent |= {"asked": "a question", "machine": "CPU"}
    write_json(run.path(f"scores/LightGCN-base-untuned-s{seed}.json"), spent)
    nothing = dict.fromkeys(spent, 0) | {"asked": None, "machine": "none"}
    write_json(run.path(f"scores/LightGCN-base-EASE-s{seed}.json"), nothing)
    monkeypatch.setattr(cost, "machine_rate", lambda: 1e9)
    known = notebook("09", monkeypatch, preset=preset)

    table = tables.read(run.path("tables/table_2_direct.csv")).query("metric == 'NDCG@5'").set_index("row")
    assert table["value"].to_dict() == {name: len(list(found)) / 8 for name, found in hits.items()}
    assert table["gain"].drop("Base").tolist() == [0, 2, 1, 2] and set(table["compared_with"]) == {"", "Base"}
    assert table["tuning"].to_dict() == dict.fromkeys(hits, "all parameters") | {"Base": "", "Base + EASE": ""}
    rated = tables.read(run.path("tables/table_4_rating.csv")).query("metric == 'RMSE'").set_index("row")
    assert rated["value"].to_dict() == {"Base": 2, "IFT": 3, "Llama4Rec": 1} and rated["gain"]["Llama4Rec"] == -0.5
    pairs = pd.read_csv(run.path("tables/pairs.csv")).query("backbone == 'SASRec' and metric == 'NDCG@5'")
    assert pairs[["row", "compared_with", "diff"]].to_numpy().tolist() == [
        ["Llama4Rec", "w/o AA", 0.25], ["Llama4Rec", "Base + EASE", 0.0],
    ]  # fmt: skip
    drawn = [*figures_drawn(known, "forest"), *figures_drawn(known, "gains")]
    told = [set(zip(each["backbone"], each["metric"], strict=True)) for each in drawn]
    each_task = {("LightGCN", "NDCG@5")}, {("SASRec", "NDCG@5")}, {("DeepFM", "RMSE")}
    assert sorted(map(sorted, told)) == sorted(map(sorted, [*each_task, set.union(*each_task)]))
    gains = tables.read(run.path("tables/gains.csv")).set_index(["task", "row", "metric"])["gain"]
    assert gains["sequential", "w/o AA", "NDCG@5"] == 1 and gains["rating", "Llama4Rec", "RMSE"] == -0.5
    chosen = read_json(run.path("tables/run.json"))["choices"]
    assert chosen == {f"{backbone}-s{seed}": {"alpha_1": 0.3} for backbone in ("LightGCN", "SASRec", "DeepFM")}
    costs = pd.read_csv(run.path("tables/cost.csv"))
    assert costs["what"].tolist() == [f"LightGCN-base-untuned-s{seed}", "all"]  # what is no LLM costs no tokens


def figures_drawn(known, name):
    """The first argument of each call of a figure by a notebook."""
    return [call.args[0] for call in getattr(known["figures"], name).call_args_list]


def test_the_small_run_s_own_numbers(small):
    """What the other tests lean on: sequences without repeats, windows, similar users that differ by fit."""
    assert all(len(set(sequence)) == len(sequence) for sequence in SEQUENCES)
    assert small[1].window.tolist() == WINDOW and small[1].histories.n_before_window.tolist() == BEFORE_WINDOW
    assert len({tuple(users) for users in SIMILAR.values()}) == 3
    assert all(users[users[u]] == u != users[u] for users in SIMILAR.values() for u in USERS)
    assert predicted(0, 1, "base") != predicted(0, 1, "augmented") and rating_of(1, 2) == 1


def test_permuted_titles_are_told_of_other_items_and_nothing_else_differs(small, tmp_path):
    ready, file = small[1], tmp_path / "permuted.yaml"
    file.write_text(PRESET.replace("prompts: {", "prompts: {titles: permuted, "), encoding="utf-8")
    years = {title: str(1980 + n) for n, title in enumerate(TITLES)}
    dataset = replace(ready.dataset, items=ready.dataset.items.assign(year=list(years.values())))
    other = prepare(dataset, presets.load(file))
    assert sorted(other.histories.titles) == TITLES and list(other.histories.titles) != TITLES
    assert other.histories.years == tuple(years[title] for title in other.histories.titles)  # P3 asks about both
    assert (other.histories.items == ready.histories.items).all() and (other.window == ready.window).all()
    assert other.split.sha256 == ready.split.sha256 and other.dataset is dataset


@pytest.mark.parametrize("task", ["direct", "sequential", "rating"])
def test_rows_are_of_the_users_that_the_preset_draws_and_all_others_are_learnt_from(small, tmp_path, task):
    """Rating rows may be of fewer still: some of the same users."""
    ready, file = small[1], tmp_path / "few.yaml"
    file.write_text(PRESET.replace("rating_users: 3", "rating_users: 3, users: 5"), encoding="utf-8")
    few, whole = prepare(ready.dataset, presets.load(file)), ready.cases(task)
    drawn = draw_users(5, 8, rng("measured users"))
    assert set(draw_users(3, 8, rng("measured users"))) < set(drawn)
    found = few.cases(task)
    for part in ("valid", "test"):
        assert set(found.loc[found["part"] == part, "user"]) == set(drawn)
        assert set(whole.loc[whole["part"] == part, "user"]) == set(range(8))
    kept = whole[(whole["part"] == "window") | whole["user"].isin(drawn)].reset_index(drop=True)
    pd.testing.assert_frame_equal(found, kept)
    assert (found["part"] == "window").sum() == sum(WINDOW)
    assert few.split.sha256 == ready.split.sha256 and (few.n_train == ready.n_train).all()
