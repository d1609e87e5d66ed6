"""Keep what a run's backbones, LLMs and baselines said in small files, or put such files where a run has its own.

    python scripts/replay.py PRESET pack [FOLDER]    a finished run into FOLDER/sSEED/, by default in results/published
    python scripts/replay.py PRESET unpack           of a preset with `published`: all of it into its run

Nothing that a user did is kept: histories, targets and ratings come from the data again.
"""

import argparse
import hashlib
from collections.abc import Container, Iterator
from pathlib import Path

import pandas as pd

from llama4rec_core import paths
from llama4rec_core.backbones import task_of
from llama4rec_core.backbones.predict import read_predictions
from llama4rec_core.data.prepared import Prepared, read_prepared
from llama4rec_core.files import read_frame, read_json, whole_folder, write_frame, write_json, write_text
from llama4rec_core.published import pack_lists, pack_ratings, unpack_lists, unpack_ratings
from llama4rec_core.run import MADE, Run, changed
from llama4rec_core.variants import asked, rows_of

PARTS = ("valid", "test")
LINES = 80_000  # in a file, which is then smaller than a megabyte
SMALL = ("augmentation/*-s{}.json", "scores/*-s{}.json", "llm/*-s{}/tuning.json", "llm/*-s{}/curve.csv",
         "llm/memorization.csv", "backbones/*-s{}/*/log.csv", "looks/*.json")  # fmt: skip


def files_of(run: Run, name: str, seed: int) -> dict[str, dict[str, str]]:
    """For each fit of a backbone the opinions about it, and their files in the run."""
    rows, task = run.preset.rows_of(name), task_of(name)
    found = {fit: {} for fit in sorted({variant.fit for variant in rows_of(rows, task).values()})}
    for fit, opinion in asked(rows, task):
        found[fit][opinion] = f"scores/{name}-{fit}-{opinion}-s{seed}.parquet"
    return found


def parts_of(fit: str, there: Container[str]) -> list[str]:
    """The files of a backbone's fit among those that are there, in order: base-test.parquet, base-test-2.parquet ..."""
    numbers = ["", *(f"-{number}" for number in range(2, 100))]
    names = [f"{fit}-{part}{number}.parquet" for part in PARTS for number in numbers]
    return [name for name in names if name in there]


def of_parts(frame: pd.DataFrame, cases: pd.DataFrame, fit: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """The lines of each of these files. cases: of the fit, which say what part a rating is of."""
    if "key" in frame:
        part = frame["key"].str.partition("-")[0]
    else:
        part = frame["case"].map(cases.set_index("case")["part"])
    for each in PARTS:
        lines = frame[part == each]
        for number, start in enumerate(range(0, max(1, len(lines)), LINES), start=1):
            file = f"{fit}-{each}-{number}" if number > 1 else f"{fit}-{each}"
            yield f"{file}.parquet", lines.iloc[start : start + LINES]


def pack(run: Run, folder: Path) -> None:
    """Each seed into a folder of its own: a frame for each backbone, fit and part, and a record with their SHA-256."""
    ready = read_prepared(run.path("data"), run.preset)
    for seed in run.preset.seeds:
        with whole_folder(folder / f"s{seed}") as to:
            pack_seed(run, ready.split.sha256, seed, to)


def pack_seed(run: Run, split_sha256: str, seed: int, to: Path) -> None:
    sums = {}
    for name in run.preset.backbones:
        files = files_of(run, name, seed)
        said = {fit: {by: read_frame(run.path(file)) for by, file in each.items()} for fit, each in files.items()}
        fits = {fit: read_predictions(run.path(f"backbones/{name}-s{seed}/{fit}")) for fit in files}
        keys = {key for each in said.values() for scores in each.values() for key in scores.get("key", ())}
        for fit, predictions in fits.items():
            if task_of(name) == "rating":
                frame = pack_ratings(predictions.cases, said[fit], run.preset.aggregation.rating)
            else:
                frame = pack_lists(predictions, said[fit], keys)
            for file, lines in of_parts(frame, predictions.cases, f"{name}-{fit}"):
                lines.to_parquet(to / file, index=False, compression="zstd", compression_level=19)
                sums[file] = sha256(to / file)
    small = sorted(path for pattern in SMALL for path in run.folder.glob(pattern.format(seed)))
    texts = {path.relative_to(run.folder).as_posix(): path.read_text(encoding="utf-8") for path in small}
    looked = [read_json(path)["commit"] for path in run.folder.glob(f"rows/*-s{seed}/look.json")]
    made = run.record() | {"git_commit": " ".join(sorted(set(looked)))}  # of the code that made the rows
    write_json(to / "record.json", {"run": made, "split_sha256": split_sha256, "sha256": sums, "files": texts})


def unpack(run: Run) -> None:
    """Raises ValueError where nothing was published, or what was is of other data or settings, or not as it was."""
    if not run.preset.published:
        raise ValueError(f"preset {run.preset.name} has no setting `published`: there is nothing to unpack")
    ready, commits = read_prepared(run.path("data"), run.preset), set()
    for seed in run.preset.seeds:
        of = Path(run.preset.published) / f"s{seed}"
        record = read_json(of / "record.json")
        check(run, ready, of, record)
        for name in run.preset.backbones:
            rows = ready.cases(task_of(name)).query("part != 'window'").reset_index(drop=True)
            for fit, files in files_of(run, name, seed).items():
                parts = parts_of(f"{name}-{fit}", record["sha256"])
                frame = pd.concat([read_frame(of / file) for file in parts], ignore_index=True)
                if task_of(name) == "rating":
                    predictions, said = unpack_ratings(frame, rows, run.preset.aggregation.rating)
                else:
                    predictions, said = unpack_lists(frame, rows)
                predictions.write(run.path(f"backbones/{name}-s{seed}/{fit}"))
                for opinion, file in files.items():
                    write_frame(run.path(file), said[opinion])
        for file, text in record["files"].items():
            write_text(run.path(file), text)
        commits.update(record["run"]["git_commit"].split())
    write_json(run.path(MADE), record["run"] | {"git_commit": " ".join(sorted(commits))})  # of the last seed's machine


def check(run: Run, ready: Prepared, of: Path, record: dict) -> None:
    wrong = []
    if record["split_sha256"] != ready.split.sha256:
        wrong.append("it was made with other data or another split than this run's")
    wrong += [
        f"{key} was {was!r}, the preset now says {now!r}"
        for key, was, now in changed(record["run"]["preset"], read_json(run.path("settings.json")))
        if key != "name"
    ]
    for file, expected in record["sha256"].items():
        if not (of / file).exists() or sha256(of / file) != expected:
            wrong.append(f"{file} is missing or not as it was published")
    fits = [f"{name}-{fit}" for name in run.preset.backbones for fit in files_of(run, name, 0)]
    needed = {f"{fit}-{part}.parquet" for fit in fits for part in PARTS}
    wrong += [f"{file} was not published" for file in sorted(needed - set(record["sha256"]))]
    if wrong:
        raise ValueError(f"{of.name} of the published answers cannot be used: " + "; ".join(wrong))


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("verb", choices=["pack", "unpack"])
    parser.add_argument("folder", nargs="?", type=Path, default=paths.results() / "published")
    given = parser.parse_args()
    run = Run.open(given.preset)
    pack(run, given.folder) if given.verb == "pack" else unpack(run)


if __name__ == "__main__":
    main()
