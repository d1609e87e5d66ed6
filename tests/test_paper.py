"""The paper's own cells: where they are found, and which of them are impossible."""

import numpy as np
import pandas as pd
import pytest

from llama4rec_core import paper


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        (("ml-100k", "MF", "Base", "HR@3"), 0.0455),
        (("ML-1M", "LightGCN", "w/o AA", "HR@3"), 0.0298),
        (("ML-100K", "BERT4Rec", "IFT", "NDCG@5"), 0.0100),
        (("ML-100K", "BERT4Rec", "IFT", "NDCG@3"), 0.0119),
        (("ml-100k", "AutoInt", "IFT", "RMSE"), 1.2792),  # the LLM alone, whatever the backbone
        (("ml-100k", "DeepFM", "IFT", "MAE"), 0.8940),
        (("BookCrossing", "LightGCN", "Llama4Rec", "NDCG@3"), 0.0338),
    ],
)
def test_paper_values(cell, value):
    assert paper.paper_value(*cell) == value


def test_the_paper_has_no_other_protocol_and_no_other_method():
    assert np.isnan(paper.paper_value("ml-100k", "MF", "Base", "HR@3", protocol="rolling"))
    assert np.isnan(paper.paper_value("ml-100k", "MF", "random DA", "HR@3"))
    assert np.isnan(paper.paper_value("my own", "MF", "Base", "HR@3"))


def test_cells_that_stand_in_two_tables_agree():
    cells = paper.paper_table().groupby(["dataset", "backbone", "row", "metric"])["value"]
    assert (cells.nunique() == 1).all() and (cells.size() == 2).sum() == 12


def test_the_papers_impossible_cell_is_found_and_no_other():
    found = paper.impossible_cells()
    assert found["rule"].tolist() == ["at least NDCG@3", "at least HR@5 / log2(6)"]
    for _, cell in found.iterrows():
        assert cell[["table", "dataset", "backbone", "row", "metric", "value"]].tolist() == [
            3, "ML-100K", "BERT4Rec", "IFT", "NDCG@5", 0.01,
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("metrics", "broken"),
    [
        ({"HR@1": 0.3, "HR@5": 0.2}, [("HR@5", 0.2, "at least HR@1", 0.3)]),
        ({"HR@3": 0.3, "NDCG@3": 0.31}, [("NDCG@3", 0.31, "at most HR@3", 0.3)]),
        ({"HR@3": 0.3, "NDCG@3": 0.14}, [("NDCG@3", 0.14, "at least HR@3 / log2(4)", 0.15)]),
        ({"NDCG@3": 0.3, "NDCG@10": 0.2}, [("NDCG@10", 0.2, "at least NDCG@3", 0.3)]),
        ({"RMSE": 0.8, "MAE": 0.9}, [("RMSE", 0.8, "at least MAE", 0.9)]),
        ({"HR@3": 0.3, "HR@5": 0.29991, "NDCG@3": 0.14991, "RMSE": 0.8, "MAE": 0.8001}, []),  # rounding is forgiven
        ({"HR@3": 0.3, "NDCG@3": 0.15, "HR@5": 0.3, "NDCG@5": 0.15, "RMSE": 1, "MAE": 1, "x@3": 5, "HR@all": 0}, []),
    ],
)
def test_impossible_cells_of_any_table(metrics, broken):
    cells = pd.DataFrame({"row": "m", "metric": list(metrics), "value": list(metrics.values())})
    found = paper.impossible_cells(cells)
    assert list(found.columns) == ["row", "metric", "value", "rule", "bound"]
    assert list(found.itertuples(index=False, name=None)) == [("m", *cell) for cell in broken]
