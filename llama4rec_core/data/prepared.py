"""What every step after notebook 01 starts from: the data set, its split, the histories, and the windows."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from llama4rec_core.backbones import task_of
from llama4rec_core.data.dataset import Dataset, read_dataset
from llama4rec_core.data.histories import Histories, histories
from llama4rec_core.data.split import Split, cases, split, windows
from llama4rec_core.data.wording import WORDS, Words
from llama4rec_core.presets import Preset
from llama4rec_core.run import STREAMS, draw_users, rng

TIES = {"file": "", "reverse": ", ties reversed", "random": ", ties at random"}  # interactions at the same second


@dataclass(frozen=True, eq=False)
class Prepared:
    dataset: Dataset
    split: Split
    histories: Histories
    window: np.ndarray  # int64 [U]: how many of a user's last training items are the window (`split.windows`)
    protocol: str  # as tables name it: the split, and how ties are broken where not in the file's order
    measured: np.ndarray  # int64: the users of whom rows are, sorted

    @property
    def n_train(self) -> np.ndarray:
        """N(u), int64 [U]."""
        return self.histories.n_train

    def cases(self, task: str) -> pd.DataFrame:
        """`split.cases` of the task. Windows are all users', validation and test cases those of the users measured."""
        found = cases(self.split, task, self.window)
        return found[(found["part"] == "window") | found["user"].isin(self.measured)].reset_index(drop=True)


def prepare(dataset: Dataset, preset: Preset) -> Prepared:
    """Split a data set as the preset says. Raises ValueError for users with too few interactions, and where a rating
    task has no ratings."""
    parts = split(dataset, preset.data.protocol, preset.data.tie_break)
    asked, seed = preset.instructions, STREAMS["window users"]
    window = windows(parts.train, dataset.n_users, asked.window_users, asked.window, seed)
    words = preset.data.words or WORDS.get(preset.data.name, Words())
    told = histories(dataset, parts, window, words)
    if preset.out_of_fold.rating and len(told.scale) < 2:
        left = [name for name in preset.backbones if task_of(name) != "rating"]
        raise ValueError(
            f"{dataset.name} has no column 'rating', or all ratings are alike, so none can be predicted: name it "
            "(`data: {columns: {rating: ...}}`), or leave that task out (`out_of_fold: {rating: null}` and "
            f"`backbones: [{', '.join(left)}]`)"
        )
    if preset.prompts.titles == "permuted":
        order = np.random.default_rng(STREAMS["permuted titles"]).permutation(dataset.n_items)
        titles, years = zip(*((told.titles[item], told.years[item]) for item in order), strict=True)
        told = replace(told, titles=titles, years=years)
    measured = np.array(draw_users(preset.evaluation.users, dataset.n_users, rng("measured users")))
    return Prepared(dataset, parts, told, window, parts.protocol + TIES[preset.data.tie_break], measured)


def read_prepared(folder: Path, preset: Preset) -> Prepared:
    """The same from the files that notebook 01 left in `folder`."""
    return prepare(read_dataset(folder), preset)
