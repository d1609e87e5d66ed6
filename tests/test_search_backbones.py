"""Settings tried on validation: what is written, what is not fitted again, and that test items change nothing."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from standins import open_run, script

from llama4rec_core.data.dataset import read_dataset, write_dataset
from llama4rec_core.data.prepared import read_prepared

ONE_EPOCH = {"epochs": 1, "dim": 4}


def searched(run, path, *tried, seeds=(100,), name="LightGCN"):
    script("search_backbones").searched(run, name, list(tried), list(seeds), path)
    return pd.read_csv(path)


def test_a_line_for_each_setting_and_seed_and_none_is_fitted_twice(results, tmp_path, monkeypatch):
    run, _ = open_run(tmp_path)
    path = tmp_path / "search" / "small.csv"
    found = searched(run, path, ONE_EPOCH, ONE_EPOCH | {"layers": 1}, seeds=(100, 101))
    assert found["seed"].tolist() == [100, 101, 100, 101]
    assert [json.loads(text)["layers"] for text in found["settings"]] == [2, 2, 1, 1]
    assert (found["valid_metric"] == "ndcg@10").all() and found["valid"].between(0, 1).all()
    module = script("search_backbones")
    monkeypatch.setattr(module, "fit", lambda *arguments: pytest.fail("fitted again"))
    module.searched(run, "LightGCN", [ONE_EPOCH], [101], path)
    assert pd.read_csv(path).equals(found)


def test_the_best_epoch_counts_which_for_ratings_is_the_lowest(results, tmp_path, monkeypatch):
    run, _ = open_run(tmp_path)
    module = script("search_backbones")
    for name, column, best in (("DeepFM", "rmse", 0.7), ("SASRec", "ndcg@10", 0.9)):
        log = pd.DataFrame({column: [0.9, 0.7, 0.8]})
        monkeypatch.setattr(module, "fit", lambda *arguments, log=log: type("Fitted", (), {"log": log}))
        module.searched(run, name, [{}], [100], tmp_path / "found.csv")
        assert pd.read_csv(tmp_path / "found.csv")[["valid", "epochs"]].values[-1].tolist() == [best, 3]


def test_the_presets_own_settings_stay_where_a_try_does_not_name_them(results, tmp_path):
    run, _ = open_run(tmp_path)
    run.preset.backbone_settings["LightGCN"] = {"epochs": 1, "dim": 8}
    found = searched(run, tmp_path / "found.csv", {"dim": 4})
    assert json.loads(found["settings"][0]).items() >= {"epochs": 1, "dim": 4, "layers": 2}.items()


def test_other_test_items_change_nothing(results, tmp_path):
    run, ready = open_run(tmp_path)
    before = searched(run, tmp_path / "before.csv", {"epochs": 3, "dim": 4})
    dataset = read_dataset(run.path("data"))
    rows = dataset.interactions.copy()
    for user, of_user in ready.split.test.groupby("user"):
        had = set(rows["item"][rows["user"] == user])
        unseen = [item for item in range(dataset.n_items) if item not in had]
        changed = (rows["user"] == user) & rows["item"].isin(of_user["item"][: len(unseen)])
        rows.loc[changed, "item"] = np.array(unseen[: changed.sum()], dtype=np.int32)
    write_dataset(replace(dataset, interactions=rows), run.path("data"))
    now = read_prepared(run.path("data"), run.preset).split
    assert not now.test["item"].equals(ready.split.test["item"]) and now.valid.equals(ready.split.valid)
    after = searched(run, tmp_path / "after.csv", {"epochs": 3, "dim": 4})
    assert after["valid"].tolist() == before["valid"].tolist()


def test_a_setting_that_the_backbone_does_not_have_is_named_before_anything_is_fitted(results, tmp_path):
    run, _ = open_run(tmp_path)
    with pytest.raises(ValueError, match="layrs"):
        searched(run, tmp_path / "found.csv", ONE_EPOCH, {"layrs": 3})
    assert not (tmp_path / "found.csv").exists()
