"""What backbones, LLMs and baselines said, in files small enough to be published, and back.

A published run lets its tables and figures be computed again without fitting, tuning or asking. For each fit of a
backbone, one frame holds its lists (or ratings) beside every opinion about them, in thousandths: of a list's standard
deviation, or of a rating. No history, no target and no rating that a user gave is in it: those come from the data.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from llama4rec_core.aggregation import standardise
from llama4rec_core.backbones.predict import Predictions, key_of

STEPS = 1000
NO_EMBEDDINGS = np.zeros((0, 0), dtype=np.float32)
NO_ITEM = -1  # in lists that were not published: they hold no target, so no order of them matters


def pack_lists(predictions: Predictions, said: Mapping[str, pd.DataFrame], keys: set[str]) -> pd.DataFrame:
    """The lists of one fit whose key is among `keys`: one line a candidate, columns key, item, backbone, and one for
    each opinion, empty where it was not asked.

    said: for each opinion its columns key, item, utility. Candidates stand in the backbone's order.
    """
    key = key_of(predictions.cases)
    there = (key.isin(keys) & ~key.duplicated()).to_numpy()
    items, k = predictions.items[there], predictions.items.shape[1]
    frame = pd.DataFrame({
        "key": np.repeat(key[there].to_numpy(), k),
        "item": items.ravel().astype(np.int32),
        "backbone": _steps(standardise(predictions.scores[there])),
    })  # fmt: skip
    index = pd.MultiIndex.from_frame(frame[["key", "item"]])
    for opinion, scores in said.items():
        values = scores.set_index(["key", "item"])["utility"].reindex(index).to_numpy(float, copy=True).reshape(-1, k)
        asked = ~np.isnan(values).any(axis=1)
        values[asked] = standardise(values[asked])
        frame[opinion] = pd.Series(np.round(values.ravel() * STEPS)).astype("Int16")
    return frame


def unpack_lists(frame: pd.DataFrame, cases: pd.DataFrame) -> tuple[Predictions, dict[str, pd.DataFrame]]:
    """Predictions for `cases` (of `data.split.cases`), and each opinion's key, item, utility, from what `pack_lists`
    made. A case without a published list has NO_ITEM in all places."""
    opinions = frame.columns.difference(["key", "item", "backbone"], sort=False)
    k = int(frame["key"].value_counts().iloc[0]) if len(frame) else 1
    packed = frame["key"].to_numpy()[::k]
    at = pd.Series(range(len(packed)), index=packed).reindex(key_of(cases))
    held, row = at.notna().to_numpy(), at.dropna().to_numpy(int)
    items = np.full((len(cases), k), NO_ITEM, dtype=np.int64)
    scores = np.zeros((len(cases), k), dtype=np.float32)
    items[held] = frame["item"].to_numpy().reshape(-1, k)[row]
    scores[held] = frame["backbone"].to_numpy().reshape(-1, k)[row] / STEPS
    said = {}
    for opinion in opinions:
        asked = frame[frame[opinion].notna()]
        said[opinion] = asked[["key", "item"]].assign(utility=asked[opinion].to_numpy(float) / STEPS)
    return Predictions(cases, items, scores, None, NO_EMBEDDINGS), said


def pack_ratings(cases: pd.DataFrame, said: Mapping[str, pd.DataFrame], column: str) -> pd.DataFrame:
    """The ratings of one fit: columns case (its number in `cases`), backbone (clipped to the scale), and `column` of
    each opinion, empty where it was not asked.

    said: for each opinion its columns part, user, item, backbone, `column`.
    """
    numbers = cases.set_index(["part", "user", "item"])["case"]
    found = {}
    for opinion, ratings in said.items():
        case = numbers.reindex(pd.MultiIndex.from_frame(ratings[["part", "user", "item"]])).to_numpy()
        found[opinion] = pd.DataFrame(
            {"backbone": _steps(ratings["backbone"], np.int32), "said": _steps(ratings[column], np.int32)}, case
        )
    every = pd.concat([each["backbone"] for each in found.values()])
    frame = every[~every.index.duplicated()].sort_index().to_frame()
    for opinion, each in found.items():
        frame[opinion] = each["said"].reindex(frame.index).astype("Int32")
    return frame.rename_axis("case").reset_index()


def unpack_ratings(
    frame: pd.DataFrame, cases: pd.DataFrame, column: str
) -> tuple[Predictions, dict[str, pd.DataFrame]]:
    """Predictions for `cases`, and each opinion's part, user, item, rating, backbone, `column`, from what
    `pack_ratings` made. The ratings that users gave are those of `cases`; a case that nobody was asked about has NaN.
    """
    known = cases.set_index("case").loc[frame["case"], ["part", "user", "item", "rating"]].reset_index(drop=True)
    known["backbone"], said = frame["backbone"].to_numpy(float) / STEPS, {}
    for opinion in frame.columns.difference(["case", "backbone"], sort=False):
        asked = frame[opinion].notna().to_numpy()
        said[opinion] = known[asked].assign(**{column: frame.loc[asked, opinion].to_numpy(float) / STEPS})
    predicted = cases["case"].map(frame.set_index("case")["backbone"] / STEPS).to_numpy(np.float32)
    return Predictions(cases, None, None, predicted, NO_EMBEDDINGS), said


def _steps(values, dtype=np.int16) -> np.ndarray:
    return np.round(np.ravel(values) * STEPS).astype(dtype)
