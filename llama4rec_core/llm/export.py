"""A tuned LLM as a plain Hugging Face folder, with its tokenizer and a card that says what it is.

Tuning leaves whole models (LoRA matrices are merged, the rows of titles' tokens are put back into the vocabulary's
table), so bare `AutoModelForCausalLM` and any server that reads such folders give the same scores.
"""

import shutil
from pathlib import Path

import pandas as pd
import yaml

from llama4rec_core.files import read_json, whole_folder, write_text
from llama4rec_core.llm.model import check_folder, folder_sha256, load_tokenizer
from llama4rec_core.presets import as_dict
from llama4rec_core.run import Run

LICENCES = {"smollm2-135m-instruct": "apache-2.0"}
WHAT = {"trunk": "tuned on title histories alone", "without_hints": "LLM', tuned on prompts without hints",
        "with_hints": "LLM'', tuned on prompts with the backbone's hints"}  # fmt: skip


def export(run: Run, which: str, seed: int, folder: Path) -> Path:
    """Copy the run's LLM `which` ("trunk", "without_hints" or "with_hints") into `folder`, with tokenizer and card.

    Raises FileNotFoundError where it was not tuned, FileExistsError where `folder` is there already.
    """
    tuned = run.path(f"llm/{which}-s{seed}")
    if not (tuned / "tuning.json").exists():
        raise FileNotFoundError(f"results/runs/{run.preset.name} has no tuned LLM {which!r} of seed {seed}")
    if folder.exists():
        raise FileExistsError(f"{folder} is there already: name a folder that is not")
    check_folder(tuned)
    with whole_folder(folder) as aside:
        for path in [*tuned.glob("*.safetensors"), *tuned.glob("*config.json")]:
            shutil.copy(path, aside / path.name)
        load_tokenizer(run.preset.llm).save_pretrained(aside)
        write_text(aside / "README.md", card(run, which, seed))
    return folder


def card(run: Run, which: str, seed: int) -> str:
    """The model card: what it was made of, by which settings, and what validation says of it."""
    made, data = read_json(run.path(f"llm/{which}-s{seed}/tuning.json")), read_json(run.path("data/split.json"))
    known = LICENCES.get(run.preset.llm)
    facts = {
        "base model": f"{run.preset.llm}, SHA-256 of its weights {made['llm']['sha256']}",
        "these weights": f"SHA-256 {folder_sha256(run.path(f'llm/{which}-s{seed}'))}",
        "data": f"{data['dataset']}, training part of the {data['protocol']} split, SHA-256 {data['data_sha256']}",
        "tuned on": f"{made['tokens']:,} tokens, {made['steps']} steps, seed {seed}",
        "code": run.record()["git_commit"],
    }
    parts = ["---", f"license: {known}" if known else "license: other", "tags: [recommendation, llama4rec]", "---"]
    parts += [f"# {run.preset.name}, {which}, seed {seed}", f"{WHAT[which]}. Made by llama4rec (arXiv 2401.13870)."]
    parts.append("\n".join(f"- {name}: {fact}" for name, fact in facts.items()))
    if not known:
        parts.append("The base model's licence holds for these weights too.")
    if found := _validation(run, which, seed):
        said = "Orders of lists that hold their target (NDCG@5), or ratings (RMSE), on validation cases:"
        parts += ["## Validation", said, "\n".join(f"- {line}" for line in found)]
    settings = {key: as_dict(run.preset)[key] for key in ("prompts", "instructions", "tuning")}
    parts += ["## Settings", "```yaml\n" + yaml.safe_dump(settings, sort_keys=False) + "```"]
    return "\n\n".join(["\n".join(parts[:4]), *parts[4:]]) + "\n"


def _validation(run: Run, which: str, seed: int) -> list[str]:
    name, found = {"without_hints": "LLM'", "with_hints": "LLM'' (augmented)"}.get(which), []
    for path in sorted(run.folder.glob(f"rows/*-s{seed}/within.csv")):
        within = pd.read_csv(path).set_index("name")
        if name in within.index:
            line = within.loc[name]
            backbone = path.parent.name.removesuffix(f"-s{seed}")
            found.append(f"{backbone}: {line['value']:.4f} [{line['ci_low']:.4f}, {line['ci_high']:.4f}]")
    return found
