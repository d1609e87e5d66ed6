"""Stand-ins for tests of the method: an LLM whose tokens are characters and whose every score is known, and a small run
whose every history, list, rating and similar user is known."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pandas as pd

import llama4rec_core
from llama4rec_core import paths
from llama4rec_core.backbones.predict import Predictions
from llama4rec_core.data import make_dataset
from llama4rec_core.data.dataset import write_dataset
from llama4rec_core.data.histories import Histories
from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.data.wording import FILMS
from llama4rec_core.files import write_frame, write_json
from llama4rec_core.llm.tree import Among
from llama4rec_core.run import Run

# -- an LLM ------------------------------------------------------------------------------------------------------------


class Characters:
    """Stands for an LLM whose tokens are characters. `likes(prefix, text)` is its log-likelihood of a branch's text."""

    start = ()

    def __init__(self, likes=lambda prefix, text: 0.0, checkpoint=""):
        self.name, self.sha256, self.checkpoint_sha256 = "characters", "", checkpoint
        self.likes, self.read = likes, []  # read: the prompts that it was asked to score
        self.sets = {}  # one Among for each set of tokens
        self.model, self.served = SimpleNamespace(parameters=list, device="cpu"), None

    def encode(self, text):
        return tuple(map(ord, text))

    def decode(self, tokens):
        return "".join(map(chr, tokens))

    def among(self, tokens):
        return self.sets.setdefault(tokens, Among(tokens))

    def choices(self, texts):
        return (ord(" "),), self.among(tuple(ord(text[1]) for text in texts))

    def text(self, prompt):
        return self.decode(prompt.prefix)

    def branches(self, prompt):
        return [self.decode(branch.tokens) for branch in prompt.branches]


def score_row(llm, prompts):
    """What `llm.score.score_row` gives, by `likes`; choices are log-probabilities among themselves."""
    out = []
    for prompt in prompts:
        llm.read.append(prompt)
        values = []
        for branch, text in zip(prompt.branches, llm.branches(prompt), strict=True):
            if branch.choices is None:
                values.append(np.array([llm.likes(llm.text(prompt), text)]))
                continue
            each = np.array([llm.likes(llm.text(prompt), text + chr(token)) for token in branch.choices.tokens])
            values.append(each - np.log(np.exp(each).sum()))
        out.append(values)
    return out


def by_hand(sequences, n_train, n_before_window, titles, ratings=None, scale=tuple("12345")) -> Histories:
    """Histories of users by their items."""
    items = np.concatenate([np.array(sequence, dtype=np.int64) for sequence in sequences])
    ratings = np.ones(len(items)) if ratings is None else np.array(ratings)
    begin = np.cumsum([0, *map(len, sequences)])
    counts = np.array(n_train), np.array(n_before_window)
    told = tuple(titles), ("",) * len(titles)
    return Histories(items, ratings.astype(np.float32), begin, *counts, *told, scale, FILMS)


# -- a run -------------------------------------------------------------------------------------------------------------

SEED = 3
TOLD = [f"Film {chr(ord('A') + n)}" for n in range(16)]  # what tells the titles apart, and a tuned LLM is told
TITLES = [f"{told} of 1990" for told in TOLD]
SEQUENCES = [[(3 * user + 5 * t) % 16 for t in range(6 + user % 4)] for user in range(8)]  # the last two: valid, test
N_TRAIN = [len(sequence) - 2 for sequence in SEQUENCES]
WINDOW = [2, 0, 3, 0, 2, 2, 3, 3]  # the last half of training, rounded down, of all users but 1 and 3
BEFORE_WINDOW = [n - window for n, window in zip(N_TRAIN, WINDOW, strict=True)]
SIMILAR = {  # each fit has other similar users
    "base": [1, 0, 3, 2, 5, 4, 7, 6],
    "augmented": [2, 3, 0, 1, 6, 7, 4, 5],
    "out_of_fold": [4, 5, 6, 7, 0, 1, 2, 3],
}
PRESET = """
data: {protocol: leave-one-out}
backbones: [LightGCN, SASRec, DeepFM]
prompts: {candidates: 4, history: 3, rated_history: 2, similar: 2}
instructions: {tokens: 100000, trunk: {tokens: 2000, history: 3}, window_users: 0.75, window: 0.5}
augmentation: {users: 4, pairs: 2, sampled: 3, items: 5, items_per_batch: 2}
aggregation: {utilities: positions}
evaluation: {rating_users: 3, draws: 20}
"""


def rating_of(user: int, t: int) -> int:
    return 1 + (user + 2 * t) % 5


def titles_told(user: int, prefix: int, length: int, titles=TOLD) -> str:
    """The last `length` titles of the first `prefix`, a line each."""
    return "".join(titles[item] + "\n" for item in SEQUENCES[user][max(0, prefix - length) : prefix])


def ratings_told(user: int, prefix: int, length: int, titles=TOLD) -> str:
    places = range(max(0, prefix - length), prefix)
    return "".join(f"{titles[SEQUENCES[user][t]]}: {rating_of(user, t)}\n" for t in places)


def quoted(hinted: str) -> list[int]:
    """Up to where a fit's hints may quote each user."""
    return BEFORE_WINDOW if hinted == "out_of_fold" else N_TRAIN


def list_prompt(row, items, hinted: str | None, titles=TOLD):
    """A ranking prompt in full. hinted: which fit's similar user is quoted. titles: TOLD, or TITLES to the untuned."""
    text = ""
    if hinted:
        other = SIMILAR[hinted][row.user]
        text += "Films a viewer of similar taste watched:\n" + titles_told(other, quoted(hinted)[other], 2)
        text += "A recommender system suggests, best first:\n" + "".join(TOLD[item] + "\n" for item in items)
    text += "Films this viewer watched, oldest first:\n" + titles_told(row.user, row.prefix, 3, titles)
    return text, [TOLD[item] for item in items]


def rating_prompt(user: int, prefix: int, targets: list[int], fit: str, hinted: str | None, titles=TOLD):
    """A rating prompt in full."""
    text = ""
    if hinted:
        other = SIMILAR[hinted][user]
        text += "Ratings a viewer of similar taste gave:\n" + ratings_told(other, quoted(hinted)[other], 2)
    text += "Ratings from 1 to 5 that this viewer gave, oldest first:\n" + ratings_told(user, prefix, 2, titles)
    said = "A recommender system predicts {:.1f} for the next one.\n" if hinted else ""
    return text, [said.format(np.float32(predicted(user, item, fit))) + f"{titles[item]}: " for item in targets]


def predicted(user: int, item: int, fit: str) -> float:
    """The rating that a fit of DeepFM predicts: another one for every user, item and fit, some above the scale."""
    return 1 + (7 * user + 3 * item + list(SIMILAR).index(fit)) % 43 / 10


def embeddings(fit: str) -> np.ndarray:
    """Similar users, in pairs, point in the same direction."""
    out = np.zeros((8, 8), dtype=np.float32)
    for user, other in enumerate(SIMILAR[fit]):
        out[user, min(user, other)] = 1 + user  # cosines do not see a length
    return out


def lists(rows: pd.DataFrame, place, others=(1, 3, 7, 9)) -> np.ndarray:
    """Four candidates for each case, the same for cases of one history: its first target at `place(row)` (0 to 3; None:
    not in the list), and others, so many items further on."""
    out, made = [], {}
    for row in rows.itertuples():
        history = row.part, row.user, row.prefix
        if history not in made:
            more, at = [(row.item + n) % 16 for n in others], place(row)
            made[history] = more if at is None else [*more[:at], row.item, *more[at:3]]
        out.append(made[history])
    return np.array(out, dtype=np.int64)


def some_place(row):
    """Every fourth user's lists miss the target."""
    return None if row.user % 4 == 2 else (row.user + row.item) % 4


def write_fit(run, ready, name: str, task: str, fit: str, place=some_place) -> Predictions:
    parts = ["window"] if fit == "out_of_fold" else ["valid", "test"]
    rows = ready.cases(task)
    rows = rows[rows["part"].isin(parts)].reset_index(drop=True)
    if task == "rating":
        rated = [predicted(row.user, row.item, fit) for row in rows.itertuples()]
        known = Predictions(rows, None, None, np.array(rated, dtype=np.float32), embeddings(fit))
    else:
        scores = np.tile(np.array([4, 3, 2, 1], dtype=np.float32), (len(rows), 1))
        others = (1, 3, 7, 9) if task == "direct" else (2, 4, 8, 11)  # no task asks what another one does
        known = Predictions(rows, lists(rows, place, others), scores, None, embeddings(fit))
    known.write(run.path(f"backbones/{name}-s{SEED}/{fit}"))
    return known


def open_run(folder: Path, preset: str = PRESET):
    """A run with its data and the predictions of every fit; and what is prepared from the data."""
    file = folder / "small.yaml"
    file.write_text(preset, encoding="utf-8")
    plays = [
        (user, item, rating_of(user, t), t)
        for user, sequence in enumerate(SEQUENCES)
        for t, item in enumerate(sequence)
    ]
    frame = pd.DataFrame(plays, columns=["user", "item", "rating", "time"])
    items = pd.DataFrame({"item": range(16), "title": TITLES, "year": "1990"})
    run = Run.open(file)
    write_dataset(make_dataset("small", frame, items, scale=(1, 5)), run.path("data"))
    ready = read_prepared(run.path("data"), run.preset)
    write_json(run.path("data/split.json"), {})
    for name, task in (("LightGCN", "direct"), ("SASRec", "sequential"), ("DeepFM", "rating")):
        for fit in SIMILAR:
            write_fit(run, ready, name, task, fit)
    write_frame(run.path("llm/prior.parquet"), pd.DataFrame({"log_p": -np.arange(16.0)}))
    write_frame(run.path("llm/memorization.csv"), pd.DataFrame({"title": ["x"], "known": [False]}))
    return run, ready


def script(name: str):
    """A file of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(name, paths.ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def notebook(name: str, monkeypatch, **parameters) -> dict:
    """Run a notebook's code, as a rule would, but without drawing figures; returns what it defined."""
    (path,) = (paths.ROOT / "notebooks").glob(f"{name}_*.ipynb")
    monkeypatch.setenv("LLAMA4REC_INSIDE_A_RULE", "1")
    monkeypatch.setattr(llama4rec_core, "figures", MagicMock(), raising=False)
    names = {"display": lambda *shown: None}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                names |= parameters
    return names
