"""Run a preset, and write how long each job took and how much memory it held at most.

    python tests/benchmarks/benchmark_walk.py PRESET [FILE ...]     adds its lines to results/benchmarks/walk.csv

FILE: what Snakemake is asked for, instead of the whole run. A job is what Snakemake starts; its memory is that of its
whole tree of processes, looked at twice a second. Jobs that are done are not timed.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil

from llama4rec_core import paths
from llama4rec_core.files import read_json
from llama4rec_core.run import Run

JOBS = (  # what the command line of a job holds, and what the job is called
    (r"notebooks/(\d\d_\w+)\.ipynb .*-p backbone (\w+) .*-p fit (\w+)", "{0} {1} {2}"),
    (r"notebooks/(\d\d_\w+)\.ipynb .*-p backbone (\w+)", "{0} {1}"),
    (r"notebooks/(\d\d_\w+)\.ipynb .*tasks: \[(\w+)", "{0} {1}"),
    (r"notebooks/(\d\d_\w+)\.ipynb", "{0}"),
    (r"llama4rec_core tune \S+ (\w+)", "tune {0}"),
    (r"scripts/(\w+)\.py \S+ (.*)", "{0} {1}"),
)


def called(command: str) -> str | None:
    for pattern, name in JOBS:
        if found := re.search(pattern, command):
            return name.format(*found.groups()).strip()
    return None


def measured(preset: str, files: list[str]) -> dict[str, list[float]]:
    """Of each job: seconds, and the most memory in MB."""
    command = [sys.executable, "-m", "snakemake", "--config", f"preset={preset}", "--", *files]
    workflow = subprocess.Popen(command, cwd=paths.ROOT)
    found: dict[str, list[float]] = {}
    while workflow.poll() is None:
        for process in psutil.Process(workflow.pid).children(recursive=True):
            try:
                if name := called(" ".join(process.cmdline())):  # a shell's, and then of what the shell started
                    tree = [process, *process.children(recursive=True)]
                    now = time.time() - process.create_time(), sum(each.memory_info().rss for each in tree) / 1e6
                    found[name] = [max(both) for both in zip(now, found.get(name, (0, 0)), strict=True)]
            except psutil.Error:  # it has ended meanwhile
                pass
        time.sleep(0.5)
    if workflow.returncode:
        raise SystemExit(workflow.returncode)
    return found


def main() -> None:
    preset, *files = sys.argv[1:]
    found, run = measured(preset, files), Run.open(preset)
    data = read_json(run.path("data/split.json"))
    about = {"preset": run.preset.name, "dataset": data["dataset"], "users": data["users"], "items": data["items"]}
    about["interactions"] = data["train"] + data["valid"] + data["test"]
    lines = [about | {"job": name, "seconds": round(s, 1), "peak_mb": round(mb)} for name, (s, mb) in found.items()]
    file = Path(paths.ROOT, "results", "benchmarks", "walk.csv")
    both = pd.concat([*([pd.read_csv(file)] if file.exists() else []), pd.DataFrame(lines)])
    both.drop_duplicates(["preset", "job"], keep="last").to_csv(file, index=False)


if __name__ == "__main__":
    main()
