"""Show a run's tables, or merge them into what is committed.

python scripts/publish.py PRESET show       print the run's tables
python scripts/publish.py PRESET merge      tables, figures, record and looks at test into results/, rows into README
"""

import argparse
import shutil

import pandas as pd

from llama4rec_core import looks, paths, tables
from llama4rec_core.evaluation import ERRORS
from llama4rec_core.files import read_json, write_text
from llama4rec_core.paper import paper_value
from llama4rec_core.run import Run
from llama4rec_core.tasks import TASKS
from llama4rec_core.variants import NEEDED, SECOND_OPINION

MARKERS = ("<!-- results: written by snakemake publish -->", "<!-- end of results -->")
SHOWN = ("HR@5", "NDCG@5", "RMSE", "MAE")


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
    seen = [path for pattern in folders for path in run.folder.glob(pattern)]
    looks.merge(map(read_json, seen), paths.results() / "test_looks.csv")
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
    """The README with the published runs of an LLM between its two markers, and the number of looks at test. Of a
    preset that was run under several protocols, rolling comes first and is shown."""
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    committed = [paths.results() / "tables" / f"{task.table}.csv" for task in TASKS.values()]
    found = [tables.read(path) for path in committed if path.exists()]
    parts = []
    if found:
        table = tables.in_order(pd.concat(found))
        table = table[(table["llm"] != "") & (table["preset"] != looks.EXEMPT) & table["metric"].isin(SHOWN)]
        first = table.groupby(tables.KEY[:3])["protocol"].transform("first")
        table = table[table["protocol"] == first]
        parts = [_run(*key, lines) for key, lines in table.groupby(tables.KEY[:4], sort=False)]
    times = looks.count(looks.read(paths.results() / "test_looks.csv"))
    parts.append(f"Test has been looked at {times} times; [test_looks.csv](results/test_looks.csv) lists every look.")
    return before + MARKERS[0] + "\n\n" + "\n\n".join(parts) + "\n\n" + MARKERS[1] + after


def _run(preset: str, llm: str, dataset: str, protocol: str, lines: pd.DataFrame) -> str:
    """A paragraph about one run and its table."""
    tuned = ", ".join(each for each in lines["tuning"].unique() if each)
    seeds = lines["seeds"].max()
    said = f"**{dataset}, {protocol}** (preset `{preset}`; LLM {llm}{f', tuned: {tuned}' if tuned else ''}; "
    said += f"seeds: {seeds:g}). Gains are over Base, with 95% intervals over users; for errors less is better."
    if protocol != "leave-one-out":
        said += " The paper's numbers are of leave-one-out."
    opinions = lines["row"].str.startswith(SECOND_OPINION)
    if opinions.any():
        said += " The second opinion shown is the one that came out best on test, so it is flattered."
    shown = []
    for (backbone, metric), each in lines.groupby(["backbone", "metric"], sort=False):
        by_row = each.set_index("row")
        best = {"best second opinion": _best(each[opinions[each.index]], metric)} if opinions.any() else {}
        shown.append({
            "backbone": backbone,
            "metric": metric,
            **{name: f"{by_row['value'][name]:.4f}" if name in by_row.index else "" for name in NEEDED},
            "gain": _gain(by_row),
            **best,
            "paper: Base, Llama4Rec, gain": _paper(dataset, backbone, metric),
        })  # fmt: skip
    cells = [list(shown[0]), ["---"] * len(shown[0]), *(each.values() for each in shown)]
    return said + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _gain(by_row: pd.DataFrame) -> str:
    """Of Llama4Rec over Base; without an interval where the two were not compared in pairs."""
    if not {"Base", "Llama4Rec"} <= set(by_row.index):
        return ""
    (ours,) = by_row.loc[["Llama4Rec"]].itertuples()
    if ours.compared_with == "Base":
        return tables.gain_text(ours)
    return tables.signed_percent(ours.value / by_row["value"]["Base"] - 1)


def _best(opinions: pd.DataFrame, metric: str) -> str:
    if opinions.empty:
        return ""
    sign = -1 if metric in ERRORS else 1
    best = opinions.loc[(sign * opinions["value"]).idxmax()]
    return f"{best['row'].removeprefix(SECOND_OPINION)} {best['value']:.4f}"


def _paper(dataset: str, backbone: str, metric: str) -> str:
    """The paper's values, which are of leave-one-out whatever our protocol."""
    base, ours = (paper_value(dataset, backbone, row, metric) for row in ("Base", "Llama4Rec"))
    return "" if pd.isna(ours) else f"{base:.4f}, {ours:.4f}, {tables.signed_percent(ours / base - 1)}"


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
