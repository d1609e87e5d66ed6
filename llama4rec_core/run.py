"""A run: a preset, the folder its files are in, and the way to files that are not there yet.

Snakemake is the only workflow: its rules say which step makes which file. A notebook names the files it needs with
`run.require(...)`. Where they are there, that returns at once; in JupyterLab, papermill or a test a missing file is
asked of Snakemake; inside one of Snakemake's own rules it is an error.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from llama4rec_core import paths, presets
from llama4rec_core.files import read_json, write_json, write_text
from llama4rec_core.presets import Preset

INSIDE = "LLAMA4REC_INSIDE_A_RULE"  # set in the rules' commands
RAW_FILES = "u.data u.item u.user ratings.dat movies.dat users.dat BX-Book-Ratings.csv BX-Books.csv BX-Users.csv"
PACKAGES = "torch transformers peft accelerate deepctr-torch numpy pandas scipy papermill snakemake".split()

MADE = "made.json"  # the record of a published run

STREAMS = {  # each random choice of a run draws from a stream of its own
    "window users": 7,
    "mixture of examples": 31,
    "examples": 32,
    "trunk": 33,
    "permuted titles": 34,
    "shuffled history": 35,
    "P1 couples": 41,
    "P2 candidates": 42,
    "P1 users": 43,
    "P2 users": 44,
    "random control": 45,
    "popularity placebo": 46,
    "measured users": 51,
    "memorization probe": 61,
}


def rng(stream: str, *seeds: int) -> np.random.Generator:
    """The generator of one of STREAMS; the same name and seeds give the same numbers. Raises KeyError for another."""
    return np.random.default_rng([*seeds, STREAMS[stream]])


def draw_users(count: int | None, n_users: int, generator: np.random.Generator) -> list[int]:
    """`count` different users (all for None, and where there are fewer), sorted."""
    return np.sort(generator.permutation(n_users)[:count]).tolist()


@dataclass(frozen=True, eq=False)
class Run:
    """A preset and the folder of its files. A file is named by its path inside that folder."""

    preset: Preset
    folder: Path
    asked: str  # how Snakemake is told which preset: its name, or its file's path

    @classmethod
    def open(cls, preset: str | Path) -> Run:
        """Raises ValueError where the folder was made with other settings: mixed results would be worth nothing."""
        asked = str(Path(preset).resolve()) if str(preset).endswith((".yaml", ".yml")) else str(preset)
        loaded = presets.load(preset)
        run = cls(loaded, paths.runs() / loaded.name, asked)
        settings, record = _identity(run.preset), run.path("settings.json")
        if not record.exists():
            write_json(record, settings)
        for key, was, now in changed(read_json(record), settings):
            raise ValueError(
                f"results/runs/{run.preset.name} was made with {key} = {was!r}, the preset now says {now!r}: "
                "delete that folder or give the preset another name"
            )
        run.note_raw_files()
        return run

    def but(self, settings: Mapping[str, Any]) -> Run:
        """The same run with other settings: {"seeds": [1], "tuning": {"layers": 4}}; all others are the preset's. Of
        fewer backbones fewer have ablations.

        They stand in a preset of the run's folder, since every job is told a preset by its name or path. Raises
        ValueError for what no preset may say, and where the run was made with other settings.
        """
        content = _merged(presets.as_dict(self.preset), _typed(settings))
        if "ablations" not in settings:
            content["ablations"] = [name for name in content["ablations"] if name in content["backbones"]]
        text = yaml.safe_dump(presets.as_dict(presets.build(content, "--config")))
        file = self.path(f"presets/{hashlib.sha256(text.encode()).hexdigest()[:16]}.yaml")
        if not file.exists():
            write_text(file, text)
        return Run.open(file)

    def path(self, name: str) -> Path:
        return self.folder / name

    def target(self, name: str = "") -> str:
        """A file, or the folder, as the Snakefile names it: from the project's folder, where it lies inside."""
        path = self.folder / name
        return str(path.relative_to(paths.ROOT) if path.is_relative_to(paths.ROOT) else path)

    def has(self, name: str) -> bool:
        return self.path(name).exists()

    def require(self, *names: str, makes: Sequence[str] = ()) -> None:
        """Return when all files are there. `makes`: those that the notebook itself makes where it runs inside a rule.

        Outside, Snakemake makes what is missing, and everything anew that other raw data than today's were used for.
        Raises FileNotFoundError inside a rule, RuntimeError where Snakemake fails.
        """
        if os.environ.get(INSIDE):
            if missing := [name for name in names if not self.has(name)]:
                raise FileNotFoundError(
                    f"results/runs/{self.preset.name} lacks {', '.join(missing)}: the rule that runs this notebook "
                    "must name these files among its inputs"
                )
            return
        made = self.path("data/dataset.json")
        stale = made.exists() and any(raw.stat().st_mtime > made.stat().st_mtime for raw in self.note_raw_files())
        if missing := [name for name in (*names, *makes) if stale or not self.has(name)]:
            _ask_snakemake(self.asked, [self.target(name) for name in missing])

    def note_raw_files(self) -> list[Path]:
        """The SHA-256 of the user's own raw files, in `data/raw.json`; that file changes when they do, and Snakemake
        then makes anew what was made of them. No file where the data come from an archive or a wheel."""
        data = self.preset.data
        if data.name == "own":
            files = [Path(file) for file in (data.interactions, data.items, data.users_file) if file]
        else:
            files = [path for name in RAW_FILES.split() if data.folder and (path := Path(data.folder, name)).exists()]
        if not files:
            return []
        record, found = self.path("data/raw.json"), {}
        for path in files:
            if not path.exists():
                raise FileNotFoundError(f"{path} is not there, but the preset's data section names it")
            with open(path, "rb") as file:
                found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
        if not record.exists() or read_json(record) != found:
            write_json(record, found)
        return [record]

    def record(self) -> dict:
        """What made the run's results: settings, data, code, packages, machine. Of a published run, what made those."""
        if self.has(MADE):
            return read_json(self.path(MADE))
        return {
            "preset": read_json(self.path("settings.json")),
            "git_commit": paths.commit(),
            "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
            "data": read_json(self.path("data/split.json")),
            "cores": os.cpu_count(),
        }


def lock(folder: Path) -> int:
    """Wait until no other workflow writes into the run's folder, then hold it until this process ends, however it ends.

    Snakemake's own lock outlives a process that was killed; this one is the operating system's. Returns the open file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT)  # not inherited by the jobs that are started
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another workflow is at work in {folder.name}: waiting for it to end", file=sys.stderr, flush=True)
        fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _ask_snakemake(preset: str, files: list[str]) -> None:
    """Run Snakemake for these files and print how far it is."""
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={preset}", "--", *files]
    print(f"asking Snakemake for {len(files)} file(s) that are not there yet", flush=True)
    told: list[str] = []
    with subprocess.Popen(
        command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            told = [*told[-40:], line.rstrip()]
            if re.search(r"\(\d+%\) done|^(local)?rule |, .*/s, |waiting for", line):
                print(line.rstrip(), flush=True)
    if process.returncode:
        raise RuntimeError("Snakemake could not make what this notebook needs; it said:\n" + "\n".join(told))


def _identity(preset: Preset) -> dict:
    """Settings that results depend on, without paths: a moved folder reopens. Seeds, backbones and rows may be added
    to a run later; prices are free, and so is what saves memory. The data's SHA-256 stands in `data/dataset.json`."""
    content = presets.as_dict(preset)
    for key in ("seeds", "backbones", "rows", "ablations", "prices", "published"):
        del content[key]
    if served := content.pop("served"):  # which LLM, but not where it is
        content["served"] = {key: served[key] for key in ("model", "api", "echo", "top")}
    del content["tuning"]["gradient_checkpointing"]
    if content["tuning"]["taken_from"] is None:
        del content["tuning"]["taken_from"]
    for key in ("folder", "interactions", "items", "users_file"):
        del content["data"][key]
    if Path(preset.llm).is_dir():
        files = sorted((path.name, path.stat().st_size) for path in Path(preset.llm).glob("*.safetensors"))
        config = Path(preset.llm) / "config.json"
        told = repr(files).encode() + (config.read_bytes() if config.exists() else b"")
        content["llm"] = f"folder {hashlib.sha256(told).hexdigest()[:16]}"
    return content


def _typed(value: Any) -> Any:
    """Numbers, true, false and null of a command line, which Snakemake hands on as text where they stand in a list."""
    if isinstance(value, Mapping):
        return {key: _typed(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_typed(each) for each in value]
    found = yaml.safe_load(value) if isinstance(value, str) else value
    return found if found is None or isinstance(found, int | float) else value


def _merged(content: dict, settings: dict) -> dict:
    """`content` with other values where `settings` has some, in sections too."""
    both = {key for key, value in settings.items() if isinstance(value, dict) and isinstance(content.get(key), dict)}
    return content | settings | {key: _merged(content[key], settings[key]) for key in both}


def changed(recorded: dict, now: dict) -> list[tuple[str, Any, Any]]:
    """Settings that differ: name, what was recorded, what is now. A setting that was not there yet had its default."""
    defaults = _flat(presets.as_dict(Preset(name="default")))
    was, now = _flat(recorded), _flat(now)
    pairs = ((key, was.get(key, defaults.get(key)), now.get(key)) for key in {**now, **was})
    return [(key, before, after) for key, before, after in pairs if before != after]


def _flat(content: dict, before: str = "") -> dict:
    out = {}
    for key, value in content.items():
        out |= _flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return out
