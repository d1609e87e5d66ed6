"""Conventional recommenders M_c ("backbones"): fitted on the training part, asked for scores, ratings, embeddings.

    fitted = fit("LightGCN", TrainingData(...), valid, seed=0)
    items, scores = top_k(fitted, users, None, exclude, k=10)

Another backbone is one file: a frozen Settings dataclass, an `nn.Module(data, settings)` with `examples`, `loss` and
`scores` (or `rate`), one line `BACKBONES["Name"] = Backbone(task, Module, Settings)`, and its import below. `fit.py`
says what each of these must return; `direct.py` shows the smallest one.
"""

from . import (  # noqa: F401  (each file enters its backbones in BACKBONES)
    bert4rec,
    cl4srec,
    direct,
    mixgcf,
    rating,
    sequential,
    sgl,
    simple,
)
from .fit import BACKBONES, Backbone, Fitted, TrainingData, fit, restore, settings_of, top_k
from .simple import YARDSTICKS

__all__ = ["BACKBONES", "YARDSTICKS", "Backbone", "Fitted", "TrainingData", "fit", "restore", "settings_of", "top_k"]
