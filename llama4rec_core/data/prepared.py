"""What every step after notebook 01 starts from: the data set, its split, the histories, and who is held out."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llama4rec_core.data.dataset import Dataset, read_dataset
from llama4rec_core.data.histories import Histories, histories
from llama4rec_core.data.split import Split, split
from llama4rec_core.data.wording import WORDS, Words
from llama4rec_core.presets import Preset
from llama4rec_core.run import STREAMS

TIES = {"file": "", "reverse": ", ties reversed", "random": ", ties at random"}  # interactions at the same second


@dataclass(frozen=True, eq=False)
class Prepared:
    dataset: Dataset
    split: Split
    histories: Histories
    held_out: np.ndarray  # bool [U]: users whose windows are kept out of tuning, to choose weights on
    protocol: str  # as tables name it: the split, and how ties are broken where not in the file's order

    @property
    def n_train(self) -> np.ndarray:
        """N(u), int64 [U]."""
        return self.histories.n_train


def prepare(dataset: Dataset, preset: Preset) -> Prepared:
    """Split a data set as the preset says. Raises ValueError for users with too few interactions."""
    parts = split(dataset, preset.data.protocol, preset.data.tie_break)
    held_out = np.zeros(dataset.n_users, dtype=bool)
    order = np.random.default_rng([STREAMS["held-out users"], dataset.n_users]).permutation(dataset.n_users)
    held_out[order[: round(preset.instructions.held_out * dataset.n_users)]] = True
    words = preset.data.words or WORDS.get(preset.data.name, Words())
    told = histories(dataset, parts, preset.instructions.window, words)
    return Prepared(dataset, parts, told, held_out, parts.protocol + TIES[preset.data.tie_break])


def read_prepared(folder: Path, preset: Preset) -> Prepared:
    """The same from the files that notebook 01 left in `folder`."""
    return prepare(read_dataset(folder), preset)
