"""Show a run's tables, or merge them into what is committed.

python scripts/publish.py PRESET show       print the run's tables
python scripts/publish.py PRESET merge      tables, figures and record into results/, rows into the README
"""

import argparse
import shutil

import pandas as pd

from llama4rec_core import paths, tables
from llama4rec_core.files import write_text
from llama4rec_core.run import Run
from llama4rec_core.tasks import TASKS

MARKERS = ("<!-- results: written by snakemake publish -->", "<!-- end of results -->")
SHOWN = ("HR@5", "NDCG@5", "RMSE", "MAE")


def show(run: Run) -> None:
    for task in TASKS.values():
        path = run.path(f"tables/{task.table}.md")
        if path.exists():
            print(path.read_text(encoding="utf-8"), flush=True)
    print(f"Tables, figures and every file behind them: results/runs/{run.preset.name}/", flush=True)


def merge(run: Run) -> pd.DataFrame:
    """Merge by key into `results/tables/`; figures and records are copied beside them. Raises ValueError where the run
    has no table."""
    made = [folder for folder in (run.path("base"), run.path("tables")) if list(folder.glob("table_*.csv"))]
    if not made:
        raise ValueError(
            f"results/runs/{run.preset.name} holds no table to publish: run snakemake or snakemake base first"
        )
    done = pd.concat([tables.publish(folder, paths.results() / "tables") for folder in made])
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
        write_text(readme, with_results(readme.read_text(encoding="utf-8"), run.preset.name))
    return done


def with_results(text: str, preset: str) -> str:
    """The README with the published rows of one preset between its two markers."""
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    lines = ["| backbone | metric | Base | IFT | Llama4Rec | paper: Base, IFT, Llama4Rec |", "| --- " * 6 + "|"]
    for task in TASKS.values():
        path = paths.results() / "tables" / f"{task.table}.csv"
        table = tables.read(path) if path.exists() else pd.DataFrame(columns=tables.COLUMNS)
        table = table[(table["preset"] == preset) & (table["llm"] != "")]  # Base rows of `snakemake base` have no LLM
        for (backbone, metric), rows in table.groupby(["backbone", "metric"], sort=False):
            if metric in SHOWN:
                rows = rows.set_index("method").reindex(["Base", "IFT", "Llama4Rec"])
                ours = " | ".join(f"{r.value:.4f} [{r.ci_low:.4f}, {r.ci_high:.4f}]" for r in rows.itertuples())
                papers = ", ".join(f"{value:.4f}" for value in rows["paper_value"])
                lines.append(f"| {backbone} | {metric} | {ours} | {papers} |")
    return before + MARKERS[0] + "\n\n" + "\n".join(lines) + "\n\n" + MARKERS[1] + after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("verb", choices=["show", "merge"])
    asked = parser.parse_args()
    run = Run.open(asked.preset)
    if asked.verb == "show":
        show(run)
    else:
        print(merge(run)[["table", "backbone", "method", "metric", "action"]].to_string(index=False))


if __name__ == "__main__":
    main()
