"""One page about a published run, from what is committed: results/report.html.

    python scripts/report.py PRESET

Tables beside the paper's numbers, figures, what it cost, every look at test, versions and hashes. The page needs no
other file and no network.
"""

import argparse
import base64
import html
from pathlib import Path

import pandas as pd

from llama4rec_core import looks, paths, tables
from llama4rec_core.files import read_json, write_text
from llama4rec_core.tasks import TASKS

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-size: 0.85rem; display: block; overflow-x: auto }
th, td { padding: 0.2rem 0.6rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left }
thead th { position: sticky; top: 0; background: white; border-bottom: 2px solid #888 }
img { max-width: 100% } figure { margin: 1rem 0 }
"""


def page(results: Path, preset: str) -> str:
    """The page's HTML. Raises FileNotFoundError where `preset` was not published."""
    record = read_json(results / "recorded" / f"run-{preset}.json")
    parts = [
        "<p>An open implementation of Llama4Rec (arXiv 2401.13870). Gains are over Base, the backbone alone, with 95% "
        "intervals over users; for errors less is better. The paper's numbers are of leave-one-out.</p>",
        _picture(results / "figures" / preset / "gains.png", "Llama4Rec's gain for every backbone"),
        "<h2>Mean gains of a task's backbones</h2>",
        _table(_gains(tables.read(results / "tables" / "gains.csv").query("preset == @preset"))),
    ]
    for task in TASKS.values():
        path = results / "tables" / f"{task.table}.csv"
        lines = tables.read(path).query("preset == @preset") if path.exists() else pd.DataFrame()
        if len(lines):
            parts += [f"<h2>Table {task.number}: {task.what}</h2>", _table(_rows(lines))]
            parts.append(_picture(results / "figures" / preset / f"forest_{task.name}.png", f"All rows, {task.what}"))
    parts += ["<h2>What the LLM cost</h2>", _table(_cost(record))]
    seen = looks.read(results / "test_looks.csv")
    parts += [f"<h2>Looks at test: {looks.count(seen)}</h2>", _table(seen.iloc[::-1])]
    known = {"commit": record["git_commit"]} | record["data"] | record["packages"]
    hashes = {f"{name}: LLM": each["llm"]["sha256"] for name, each in record["tuning"].items()}
    versions = pd.DataFrame({"what": [*known, *hashes], "value": [*known.values(), *hashes.values()]})
    parts += ["<h2>Versions and hashes</h2>", _table(versions)]
    title = f"llama4rec: {preset}"
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    body = "\n".join([f"<h1>{title}</h1>", *parts])
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def _rows(lines: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({
        "data set": lines["dataset"],
        "protocol": lines["protocol"],
        "LLM": lines["llm"],
        "backbone": lines["backbone"],
        "row": lines["row"],
        "metric": lines["metric"],
        "value": [f"{each.value:.4f} [{each.ci_low:.4f}, {each.ci_high:.4f}]" for each in lines.itertuples()],
        "gain over Base": [tables.gain_text(each) for each in lines.itertuples()],
        "p (Holm)": lines["p_users"].map("{:.3f}".format, na_action="ignore"),
        "alpha_1": lines["alpha_1"],
        "alpha_2": lines["alpha_2"],
        "the paper": lines["paper_value"].map("{:.4f}".format, na_action="ignore"),
        "users": lines["users"].astype(int),
        "seeds": lines["seeds"].astype(int),
    })  # fmt: skip


def _gains(lines: pd.DataFrame) -> pd.DataFrame:
    percent = {name: lines[name].map(tables.signed_percent) for name in ("gain", "ci_low", "ci_high")}
    return lines[["dataset", "protocol", "task", "row", "metric", "backbones"]].astype({"backbones": int}).assign(
        gain=percent["gain"] + " [" + percent["ci_low"] + ", " + percent["ci_high"] + "]",
        better=lines["better"].astype(int),
        worse=lines["worse"].astype(int),
        **{"the paper's": lines["paper_gain"].map(tables.signed_percent, na_action="ignore")},
    )  # fmt: skip


def _cost(record: dict) -> pd.DataFrame:
    """Tuning and asking: tokens and minutes of each on each machine, answers that several files are made of once."""
    asked = {each.get("asked", name): each for name, each in record["asking"].items()}.values()
    steps = [(f"tuning {name}", each) for name, each in record["tuning"].items()]
    steps += [("asking", each | {"tokens": each["tokens_read"]}) for each in asked]
    lines = pd.DataFrame([{"what": what, "machine": "", **each} for what, each in steps])
    sums = lines.groupby(["what", "machine"], sort=False)[["tokens", "seconds"]].sum().reset_index()
    minutes = (sums["seconds"] / 60).map("{:.1f}".format)
    return sums[["what", "machine"]].assign(**{"tokens read": sums["tokens"].map("{:,}".format), "minutes": minutes})


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(index=False, border=0, na_rep="")


def _picture(path: Path, text: str) -> str:
    content = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{html.escape(text)}" src="data:image/png;base64,{content}"></figure>'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    write_text(paths.results() / "report.html", page(paths.results(), parser.parse_args().preset))


if __name__ == "__main__":
    main()
