"""Show a run's tables, or merge them into what is committed.

python scripts/publish.py PRESET show       print the run's tables
python scripts/publish.py PRESET merge      tables, figures, record and looks at test into results/, rows into README
"""

import argparse
import shutil

import pandas as pd

from llama4rec_core import looks, paths, tables
from llama4rec_core.files import read_json, write_text
from llama4rec_core.run import Run
from llama4rec_core.tasks import TASKS, Task
from llama4rec_core.variants import SECOND_OPINION

MARKERS = ("<!-- results: written by snakemake publish -->", "<!-- end of results -->")


def show(run: Run) -> None:
    for task in TASKS.values():
        path = run.path(f"tables/{task.table}.md")
        if path.exists():
            print(path.read_text(encoding="utf-8"), flush=True)
    print(f"Tables, figures and every file behind them: results/runs/{run.preset.name}/", flush=True)


def merge(run: Run) -> pd.DataFrame:
    """Merge by key into `results/tables/`, and the run's looks at test into `results/test_looks.csv`; figures and
    records are copied beside them. Raises ValueError where the run has no table."""
    made = [folder for folder in (run.path("base"), run.path("tables")) if list(folder.glob("table_*.csv"))]
    if not made:
        raise ValueError(
            f"results/runs/{run.preset.name} holds no table to publish: run snakemake or snakemake base first"
        )
    done = pd.concat([tables.publish(folder, paths.results() / "tables") for folder in made])
    folders = ("looks/*.json", "rows/*/look.json", "base/*/*.json")
    seen = [read_json(path) for pattern in folders for path in run.folder.glob(pattern)]
    if run.preset.published:  # it repeats what the run that said it has looked at
        seen = [look for look in seen if look["preset"] != run.preset.name]
    looks.merge(seen, paths.results() / "test_looks.csv")
    pictures = paths.results() / "figures" / run.preset.name
    pictures.mkdir(parents=True, exist_ok=True)
    curves = {f"training_{name}_s{run.preset.seeds[0]}_base" for name in run.preset.backbones}  # not of every fit
    for path in sorted(run.path("figures").glob("*.png")):
        if path.stem in curves or not path.stem.startswith("training_"):
            shutil.copy(path, pictures / path.name)
    for source, name in (("tables/run.json", "run"), ("base/record.json", "base")):
        if run.has(source):
            recorded = paths.results() / "recorded" / f"{name}-{run.preset.name}.json"
            write_text(recorded, run.path(source).read_text(encoding="utf-8"))
    if paths.results() == paths.ROOT / "results":  # the README shows what is committed beside it
        readme = paths.ROOT / "README.md"
        write_text(readme, with_results(readme.read_text(encoding="utf-8")))
    return done


def with_results(text: str) -> str:
    """The README with the published mean gains between its two markers, and the number of looks at test. Of each data
    set and task the run of most backbones is shown, rolling before leave-one-out, more seeds before fewer."""
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    path, parts = paths.results() / "tables" / "gains.csv", []
    if path.exists():
        gains = tables.read(path)
        main = gains["metric"] == gains["task"].map({task.name: task.metric for task in TASKS.values()})
        gains = gains[main & (gains["preset"] != "smoke")].assign(
            other=gains["protocol"].str.startswith("leave-one-out")
        )
        gains = gains.sort_values(["backbones", "other", "seeds"], ascending=[False, True, False], kind="stable")
        lines = [
            _mean_gains(dataset, TASKS[task], next(iter(of.groupby(tables.GAIN_KEY[:4], sort=False)))[1])
            for dataset, each in gains.groupby("dataset", sort=False)
            for task, of in each.groupby("task", sort=False)
        ]
        lines.sort(key=lambda line: (line["data set"], [task.what for task in TASKS.values()].index(line["task"])))
        cells = [list(lines[0]), ["---"] * len(lines[0]), *(line.values() for line in lines)] if lines else []
        parts.append("\n".join(f"| {' | '.join(map(str, line))} |" for line in cells))
    times = looks.count(looks.read(paths.results() / "test_looks.csv"))
    parts.append(f"Test has been looked at {times} times; [test_looks.csv](results/test_looks.csv) lists every look.")
    return before + MARKERS[0] + "\n\n" + "\n\n".join(filter(None, parts)) + "\n\n" + MARKERS[1] + after


def _mean_gains(dataset: str, task: Task, lines: pd.DataFrame) -> dict[str, object]:
    """A line of the README: one task's mean gains in one run."""
    by_row = lines.set_index("row")
    ours, sign = by_row.loc["Llama4Rec"], task.sign
    opinions = by_row[by_row.index.str.startswith(SECOND_OPINION)]
    best = "" if opinions.empty else opinions.loc[(sign * opinions["gain"]).idxmax()]
    n = int(ours["backbones"])
    return {
        "data set": dataset,
        "task": task.what,
        "metric": task.metric,
        "backbones": n,
        "IFT": _interval(by_row.loc["IFT"]) if "IFT" in by_row.index else "",
        "Llama4Rec": _interval(ours),
        "better, interval without 0": f"{int(ours['better'])} of {n}",
        "best second opinion": "" if opinions.empty else f"{best.name.removeprefix(SECOND_OPINION)} {_interval(best)}",
        "the paper's Llama4Rec": "" if pd.isna(ours["paper_gain"]) else tables.signed_percent(ours["paper_gain"]),
        "preset, seeds": f"{ours['preset']}, {int(ours['seeds'])}",
    }


def _interval(line: pd.Series) -> str:
    if pd.isna(line["gain"]):
        return ""
    gain, low, high = (tables.signed_percent(line[name]) for name in ("gain", "ci_low", "ci_high"))
    return f"{gain} [{low}, {high}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("verb", choices=["show", "merge"])
    asked = parser.parse_args()
    run = Run.open(asked.preset)
    if asked.verb == "show":
        show(run)
    else:
        print(merge(run)[["table", "backbone", "row", "metric", "action"]].to_string(index=False))


if __name__ == "__main__":
    main()
