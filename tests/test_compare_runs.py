"""Two runs' rows in pairs over users: by hand, and what cannot be paired."""

import pandas as pd
import pytest
from standins import script

from llama4rec_core.files import write_frame, write_json
from llama4rec_core.run import Run


@pytest.fixture
def runs(results, tmp_path):
    """One of users 0 to 3 and one of users 1 to 4, with two rows in common."""
    found = []
    for name, users, better in (("ours", range(4), 0.25), ("theirs", range(1, 5), 0.0)):
        file = tmp_path / f"{name}.yaml"
        file.write_text("backbones: [LightGCN, DeepFM]\nevaluation: {draws: 50}\n", encoding="utf-8")
        run = Run.open(file)
        write_json(run.path("data/split.json"), {"split_sha256": "abc"})
        for backbone, column in (("LightGCN", "NDCG@5"), ("DeepFM", "MSE")):
            rows = [(row, 0, user, user / 10 + better * (row == "IFT"))
                    for row in ("Base", "IFT", f"only {name}") for user in users]  # fmt: skip
            frame = pd.DataFrame(rows, columns=["row", "seed", "user", column])
            write_frame(run.path(f"rows/{backbone}-s0/per_user.parquet"), frame)
        found.append(run)
    return found


def test_rows_that_both_runs_have_are_compared_on_the_users_that_both_have(runs):
    found = script("compare_runs").compared(*runs).set_index(["backbone", "row"])
    assert found.index.tolist() == [(name, row) for name in ("LightGCN", "DeepFM") for row in ("Base", "IFT")]
    assert (found["users"] == 3).all()
    assert found.loc[("LightGCN", "Base"), ["ours", "theirs", "diff"]].tolist() == pytest.approx([0.2, 0.2, 0])
    ift = found.loc[("LightGCN", "IFT")]
    assert ift[["ours", "theirs", "diff", "ci_low", "ci_high"]].tolist() == pytest.approx([0.45, 0.2, 0.25, 0.25, 0.25])
    assert ift["p_users"] == 0.25  # of eight patterns of signs two are as extreme
    rmse = found.loc[("DeepFM", "IFT")]
    assert rmse["metric"] == "RMSE" and rmse["diff"] == pytest.approx(0.45**0.5 - 0.2**0.5)


def test_runs_of_other_data_or_without_a_common_row_are_refused(runs):
    ours, theirs = runs
    for name in ("LightGCN", "DeepFM"):
        path = theirs.path(f"rows/{name}-s0/per_user.parquet")
        write_frame(path, pd.read_parquet(path).query("row == 'only theirs'"))
    with pytest.raises(ValueError, match="ours and theirs have no backbone, seed and row in common"):
        script("compare_runs").compared(ours, theirs)
    write_json(theirs.path("data/split.json"), {"split_sha256": "xyz"})
    with pytest.raises(ValueError, match="have other data or another split"):
        script("compare_runs").compared(ours, theirs)
