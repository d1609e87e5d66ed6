"""What a run has to show: the tables on the terminal, the record of what made them, and their publication.

python -m llama4rec_core.report show quick       print the run's tables
python -m llama4rec_core.report base quick       Base rows of all backbones fitted so far, as Tables 2-4
python -m llama4rec_core.report variant quick rolling LightGCN 0     one backbone, another protocol or tie-break
python -m llama4rec_core.report publish quick    merge tables, figures and record into results/
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from dataclasses import replace
from importlib.metadata import version

import pandas as pd

from llama4rec_core import figures, paths, tables
from llama4rec_core.backbones import BACKBONES, YARDSTICKS
from llama4rec_core.files import read_json, write_frame, write_json, write_text
from llama4rec_core.llm import cost
from llama4rec_core.rows import TABLES, VARIANTS, base, caption, variants
from llama4rec_core.stages import Run, llm_record, task_of

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
    content = _made_with(run) | {
        "seeds": list(run.preset.seeds),
        "backbones": list(run.preset.backbones),
        "llm": read_json(weights) if weights.exists() else {},
        "tuning": tuned,
        "scoring": costs,
        "tokens_read": sum(each["tokens_read"] for each in costs.values()),
        "prompts_sent": sum(each["prompts_sent"] for each in costs.values()),
        "answers_that_did_not_parse": unparsed,
        "titles_known_by_heart": float(pd.read_csv(known)["known"].mean()) if known.exists() else None,
    }
    write_json(run.folder / "run.json", content)
    return content


def _made_with(run: Run) -> dict:
    return {
        "preset": read_json(run.folder / "preset.json"),
        "git_commit": paths.commit(),
        "packages": {name: version(name) for name in PACKAGES} | {"python": platform.python_version()},
        "data": read_json(run.folder / "data" / "split.json"),
        "cores": os.cpu_count(),
    }


def _costs(run: Run) -> dict[str, dict]:
    found = [*(run.folder / "scores").glob("*-raw.json"), *(run.folder / "augmentation").glob("*.json")]
    return {path.stem.removesuffix("-raw"): read_json(path) for path in sorted(found)}


def cost_table(run: Run) -> pd.DataFrame:
    """What the LLM's reading and writing cost, `cost.csv`: columns as `llm.cost.table` says."""
    prices = run.preset.prices
    found = cost.table(_costs(run), llm_record(run), cost.machine_rate(), prices.read, prices.written)
    write_frame(run.folder / "cost.csv", found)
    return found


def show(run: Run, folder: str = "tables") -> None:
    for name in TABLES.values():
        path = run.folder / folder / f"{name}.md"
        if path.exists():
            print(path.read_text(encoding="utf-8"), flush=True)
    print(f"Tables, figures and every file behind them: results/runs/{run.preset.name}/", flush=True)


def variant(run: Run, name: str) -> Run:
    """The same run under one of VARIANTS' data settings, in a folder of its own beside it."""
    data = replace(run.preset.data, **VARIANTS[name])
    return Run.open(replace(run.preset, name=f"{run.preset.name}-{name}", data=data))


def base_rows(run: Run) -> dict[str, pd.DataFrame]:
    """Base rows of every backbone and seed that has been fitted, also under VARIANTS, as Tables 2-4 in `base/`, with a
    record of what made them in `base.json` and their training curves in one figure."""
    others = [name for name in variants(run.preset.data) if (paths.runs() / f"{run.preset.name}-{name}").exists()]
    frames: dict[str, list[pd.DataFrame]] = {}
    made = []
    for each in [run, *(variant(run, name) for name in others)]:
        folders = each.folder / "backbones"
        fits = [path.parent.parent.name for path in folders.glob("*/base/predictions.parquet")]
        for fit in sorted({*fits, *(f"{name}-s0" for name in YARDSTICKS)}):
            name, seed = fit.rsplit("-s", 1)
            if name in BACKBONES:
                frames.setdefault(task_of(name), []).append(base(each, name, int(seed)))
        made.append(_made_with(each) | {"fits": [read_json(p) for p in sorted(folders.glob("*/base/fit.json"))]})
    out = {}
    for task, found in frames.items():
        whole = pd.concat(found, ignore_index=True)
        table = tables.build(whole, preset=run.preset.name, llm="", draws=run.preset.evaluation.draws)
        tables.write(table, run.folder / "base" / f"{TABLES[task]}.csv", caption(run, task))
        out[TABLES[task]] = table
    write_json(run.folder / "base.json", made)
    logs: dict[str, list[pd.DataFrame]] = {}
    for name in (name for name in BACKBONES if name not in YARDSTICKS):
        for path in sorted((run.folder / "backbones").glob(f"{name}-s*/base/log.csv")):
            logs.setdefault(name, []).append(pd.read_csv(path))
    if logs:
        figures.save(figures.all_curves(logs), run.folder / "figures" / "base_curves.png")
    return out


def publish(run: Run) -> pd.DataFrame:
    """Merge the run's tables and Base rows by key into `results/tables/`; copy its figures and record beside them."""
    made = [folder for folder in (run.folder / "base", run.folder / "tables") if folder.exists()]
    if not made:
        raise ValueError(
            f"results/runs/{run.preset.name} holds no table to publish: run snakemake or snakemake base first"
        )
    done = pd.concat([tables.publish(folder, paths.results() / "tables") for folder in made])
    pictures = paths.results() / "figures" / run.preset.name
    pictures.mkdir(parents=True, exist_ok=True)
    curves = {f"training_{name}_s{run.preset.seeds[0]}" for name in run.preset.backbones}  # not of each Base fit
    for path in sorted((run.folder / "figures").glob("*.png")):
        if path.stem in curves or not path.stem.startswith("training_"):
            shutil.copy(path, pictures / path.name)
    for name in ("run", "base"):
        if (run.folder / f"{name}.json").exists():
            record = paths.results() / "recorded" / f"{name}-{run.preset.name}.json"
            write_text(record, (run.folder / f"{name}.json").read_text(encoding="utf-8"))
    if paths.results() == paths.ROOT / "results":  # the README shows what is committed beside it
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
        table = table[(table["preset"] == preset) & (table["llm"] != "")]  # Base rows of `snakemake base` have no LLM
        for (backbone, metric), rows in table.groupby(["backbone", "metric"], sort=False):
            if metric in ("HR@5", "NDCG@5", "RMSE", "MAE"):
                rows = rows.set_index("method").reindex(["Base", "IFT", "Llama4Rec"])
                ours = " | ".join(f"{r.value:.4f} [{r.ci_low:.4f}, {r.ci_high:.4f}]" for r in rows.itertuples())
                papers = ", ".join(f"{value:.4f}" for value in rows["paper_value"])
                lines.append(f"| {backbone} | {metric} | {ours} | {papers} |")
    return before + MARKERS[0] + "\n".join(lines) + "\n\n" + MARKERS[1] + after


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m llama4rec_core.report", description=__doc__.splitlines()[0])
    parser.add_argument("verb", choices=["show", "base", "variant", "publish"])
    parser.add_argument("preset")
    parser.add_argument("of", nargs="*", help=f"variant: one of {', '.join(VARIANTS)}, the backbone and the seed")
    asked = parser.parse_args(arguments)
    run = Run.open(asked.preset)
    if asked.verb == "variant":
        which, name, seed = asked.of
        base(variant(run, which), name, int(seed))
    elif asked.verb == "publish":
        print(publish(run)[["table", "backbone", "method", "metric", "action"]].to_string(index=False))
    else:
        if asked.verb == "base":
            base_rows(run)
        show(run, "base" if asked.verb == "base" else "tables")


if __name__ == "__main__":
    main()
