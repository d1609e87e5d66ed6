"""What a run has to show: the tables on the terminal, the record of what made them, and their publication.

python -m llama4rec_core.report show quick       print the run's tables
python -m llama4rec_core.report base quick       Base rows of all backbones fitted so far, table and Markdown
python -m llama4rec_core.report ties quick reverse LightGCN 0     one Base row with ties in time broken otherwise
python -m llama4rec_core.report publish quick    merge tables, figures and record into results/
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
from dataclasses import replace
from importlib.metadata import version

import pandas as pd

from llama4rec_core import paths, tables
from llama4rec_core.backbones import BACKBONES, YARDSTICKS
from llama4rec_core.files import read_json, write_frame, write_json, write_text
from llama4rec_core.llm import cost
from llama4rec_core.rows import TABLES, TIES, base
from llama4rec_core.stages import Run, llm_record, prepare, task_of

MARKERS = ("<!-- results: written by snakemake publish -->", "<!-- end of results -->")
PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "deepctr-torch",
    "numpy",
    "pandas",
    "scipy",
    "papermill",
    "snakemake",
)


def record(run: Run) -> dict:
    """`run.json`: what made these results, and what they cost."""
    costs = _costs(run)
    tuned = {path.parent.name: read_json(path) for path in sorted((run.folder / "llm").glob("*/tuning.json"))}
    unparsed = {
        path.stem: int((pd.read_csv(path)["defects"].fillna("") != "").sum())
        for path in sorted((run.folder / "augmentation").glob("attributes-*.csv"))
    }
    weights, known = run.folder / "llm" / "weights.json", run.folder / "llm" / "memory.csv"
    content = {
        "preset": read_json(run.folder / "preset.json"),
        "seeds": list(run.preset.seeds),
        "backbones": list(run.preset.backbones),
        "git_commit": _commit(),
        "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "data": read_json(run.folder / "data" / "split.json"),
        "llm": read_json(weights) if weights.exists() else {},
        "cores": os.cpu_count(),
        "tuning": tuned,
        "scoring": costs,
        "tokens_read": sum(each["tokens_read"] for each in costs.values()),
        "prompts_sent": sum(each["prompts_sent"] for each in costs.values()),
        "answers_that_did_not_parse": unparsed,
        "titles_known_by_heart": float(pd.read_csv(known)["known"].mean()) if known.exists() else None,
    }
    write_json(run.folder / "run.json", content)
    return content


def _costs(run: Run) -> dict[str, dict]:
    found = [*(run.folder / "scores").glob("*-raw.json"), *(run.folder / "augmentation").glob("*.json")]
    return {path.stem.removesuffix("-raw"): read_json(path) for path in sorted(found)}


def cost_table(run: Run) -> pd.DataFrame:
    """What the LLM's reading and writing cost, `tables/cost.csv`: columns as `llm.cost.table` says."""
    prices = run.preset.prices
    found = cost.table(_costs(run), llm_record(run), cost.machine_rate(), prices.read, prices.written)
    write_frame(run.folder / "tables" / "cost.csv", found)
    return found


def _commit() -> str:
    try:
        said = subprocess.run(
            ["git", "-C", str(paths.ROOT), "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.stdout.strip()


def show(run: Run) -> None:
    for name in TABLES.values():
        path = run.folder / "tables" / f"{name}.md"
        if path.exists():
            print(path.read_text(encoding="utf-8"), flush=True)
    print(f"Tables, figures and every file behind them: results/runs/{run.preset.name}/", flush=True)


def broken_otherwise(run: Run, tie_break: str) -> Run:
    """The same run where interactions of one user at one second stand in another order (`data.tie_break`)."""
    data = replace(run.preset.data, tie_break=tie_break)
    return Run.open(replace(run.preset, name=f"{run.preset.name}-ties-{tie_break}", data=data))


def base_rows(run: Run) -> pd.DataFrame:
    """Base rows of every backbone and seed that has been fitted, one table, `tables/base.csv` with its Markdown twin;
    those with ties broken otherwise beside them."""
    ready = prepare(run)
    runs = [run] + [
        broken_otherwise(run, ties) for ties in TIES if (paths.runs() / f"{run.preset.name}-ties-{ties}").exists()
    ]
    frames: dict[str, list[pd.DataFrame]] = {task: [] for task in TABLES}
    for each in runs:
        for name in YARDSTICKS:
            base(each, name, 0)
        for path in sorted((each.folder / "backbones").glob("*/base/predictions.parquet")):
            name, seed = path.parent.parent.name.rsplit("-s", 1)
            if name in BACKBONES:
                frames[task_of(name)].append(base(each, name, int(seed)))
    built = [
        tables.build(
            pd.concat(found, ignore_index=True), preset=run.preset.name, llm="", draws=run.preset.evaluation.draws
        )
        for found in frames.values()
        if found
    ]
    table = pd.concat(built, ignore_index=True)
    caption = (
        f"Base rows: conventional models alone on {ready.dataset.name} ({ready.split.protocol}), "
        f"all {ready.dataset.n_users} users, beside the paper's Base."
    )
    tables.write(table, run.folder / "tables" / "base.csv", caption)
    return table


def publish(run: Run) -> pd.DataFrame:
    """Merge the run's tables by key into `results/tables/`; copy its figures and record beside them."""
    done = tables.publish(run.folder / "tables", paths.results() / "tables")
    figures = paths.results() / "figures" / run.preset.name
    figures.mkdir(parents=True, exist_ok=True)
    for path in sorted((run.folder / "figures").glob("*.png")):
        shutil.copy(path, figures / path.name)
    if (run.folder / "run.json").exists():
        shutil.copy(run.folder / "run.json", paths.results() / "recorded" / f"run-{run.preset.name}.json")
    readme = paths.ROOT / "README.md"
    write_text(readme, with_results(readme.read_text(encoding="utf-8"), run.preset.name))
    return done


def with_results(text: str, preset: str) -> str:
    """The README with the published rows of one preset between its two markers."""
    before, rest = text.split(MARKERS[0])
    _, after = rest.split(MARKERS[1])
    lines = [
        "",
        "",
        "| backbone | metric | Base | IFT | Llama4Rec | paper: Base, IFT, Llama4Rec |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in TABLES.values():
        path = paths.results() / "tables" / f"{name}.csv"
        table = tables.read(path) if path.exists() else pd.DataFrame(columns=tables.COLUMNS)
        for (backbone, metric), rows in table[table["preset"] == preset].groupby(["backbone", "metric"], sort=False):
            if metric in ("HR@5", "NDCG@5", "RMSE", "MAE"):
                rows = rows.set_index("method").reindex(["Base", "IFT", "Llama4Rec"])
                ours = " | ".join(f"{r.value:.4f} [{r.ci_low:.4f}, {r.ci_high:.4f}]" for r in rows.itertuples())
                papers = ", ".join(f"{value:.4f}" for value in rows["paper_value"])
                lines.append(f"| {backbone} | {metric} | {ours} | {papers} |")
    return before + MARKERS[0] + "\n".join(lines) + "\n\n" + MARKERS[1] + after


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m llama4rec_core.report", description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["show", "base", "ties", "publish"])
    parser.add_argument("preset")
    parser.add_argument("of", nargs="*", help="ties: the tie-break, the backbone and the seed")
    asked = parser.parse_args(arguments)
    run = Run.open(asked.preset)
    if asked.verb == "show":
        show(run)
    elif asked.verb == "ties":
        tie_break, name, seed = asked.of
        base(broken_otherwise(run, tie_break), name, int(seed))
    elif asked.verb == "base":
        base_rows(run)
        print((run.folder / "tables" / "base.md").read_text(encoding="utf-8"))
    else:
        print(publish(run)[["table", "backbone", "method", "metric", "action"]].to_string(index=False))


if __name__ == "__main__":
    main()
