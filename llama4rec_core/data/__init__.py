"""Ratings in: sources (where the files come from), readers (files to Dataset), split (Dataset to parts and cases)."""

from llama4rec_core.data.dataset import Dataset, content_hash, make_dataset, subset_users, table_1
from llama4rec_core.data.readers import k_core, load, read_bookcrossing, read_ml1m, read_ml100k, read_own
from llama4rec_core.data.sources import RawFiles, SourceError, bookcrossing, ml1m, ml100k, verify, wheel_member
from llama4rec_core.data.split import Split, cases, cut_last, load_split, offsets, save_split, split

__all__ = [
    "Dataset",
    "RawFiles",
    "SourceError",
    "Split",
    "bookcrossing",
    "cases",
    "content_hash",
    "cut_last",
    "k_core",
    "load",
    "load_split",
    "make_dataset",
    "ml100k",
    "ml1m",
    "offsets",
    "read_bookcrossing",
    "read_ml100k",
    "read_ml1m",
    "read_own",
    "save_split",
    "split",
    "subset_users",
    "table_1",
    "verify",
    "wheel_member",
]
