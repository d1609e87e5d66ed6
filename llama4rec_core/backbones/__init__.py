"""Conventional recommenders M_c ("backbones") by name. Importing this package does not import torch.

    from llama4rec_core.backbones.fit import TrainingData, fit
    from llama4rec_core.backbones.predict import top_k

    fitted = fit("LightGCN", TrainingData(...), valid, seed=0)
    items, scores = top_k(fitted, users, None, exclude, k=10)

A new backbone is one file in this folder and one line in BACKBONES. For "GMF" the file defines `GMF`, an `nn.Module`
made from (data, settings), and the frozen dataclass `GMFSettings`. `fit.py` lists the methods that the class needs;
`mf.py` is the smallest example.
"""

from importlib import import_module
from typing import Literal, NamedTuple


class Entry(NamedTuple):
    """Where a backbone is found: the task it solves, and the file of this folder that defines it."""

    task: Literal["direct", "sequential", "rating"]
    module: str


FEATURE_MODELS = ("DeepFM", "NFM", "DCN", "AFM", "xDeepFM", "AutoInt")
BACKBONES = {  # the paper's thirteen come first, in the order of its tables
    "MF": Entry("direct", "mf"),
    "LightGCN": Entry("direct", "lightgcn"),
    "MixGCF": Entry("direct", "mixgcf"),
    "SGL": Entry("direct", "sgl"),
    "SASRec": Entry("sequential", "sasrec"),
    "BERT4Rec": Entry("sequential", "bert4rec"),
    "CL4SRec": Entry("sequential", "cl4srec"),
    **{name: Entry("rating", "feature_models") for name in FEATURE_MODELS},
    "Popularity": Entry("direct", "baselines"),
    "ItemKNN": Entry("direct", "baselines"),
    "EASE": Entry("direct", "baselines"),
    "RecentItemKNN": Entry("sequential", "baselines"),
    "Bias": Entry("rating", "baselines"),
}
PAPER_BACKBONES = tuple(BACKBONES)[:13]
# without gradient steps: what every backbone must beat, and second opinions in its blend
BASELINES = tuple(name for name, entry in BACKBONES.items() if entry.module == "baselines")


def task_of(name: str) -> str:
    """The backbone's task: "direct", "sequential" or "rating". Raises ValueError for an unknown backbone."""
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}: the known ones are {', '.join(sorted(BACKBONES))}")
    return BACKBONES[name].task


def backbone_of(name: str) -> tuple[type, type]:
    """The backbone's module class and its settings class, from its file. Raises ValueError for an unknown backbone."""
    task_of(name)
    file = import_module(f".{BACKBONES[name].module}", __name__)
    return getattr(file, name), getattr(file, f"{name}Settings")
