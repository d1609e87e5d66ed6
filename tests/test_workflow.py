"""What Snakemake would do, by dry runs: which jobs there are, what they read and write, and what a change redoes."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, field

import nbformat
import pandas as pd
import pytest
import yaml

from llama4rec_core import paths
from llama4rec_core.backbones import BASELINES, PAPER_BACKBONES
from llama4rec_core.run import Run, lock

MINE = """
data: {name: own, interactions: plays.csv, items: songs.csv, protocol: rolling}
backbones: [LightGCN, SASRec, DeepFM]
"""
BACKBONES = ("LightGCN", "SASRec", "DeepFM")
MADE = dict(
    zip(BACKBONES, ("pairs", "insertions", "attributes"), strict=True)
)  # what each is fitted on beside the data
LLMS = {"base": ("untuned", "without_hints"), "augmented": ("with_hints",)}
FREE = {"LightGCN": ("Popularity", "ItemKNN", "RecentItemKNN", "EASE"), "DeepFM": ("Bias",)}  # opinions without an LLM
FREE["SASRec"] = FREE["LightGCN"]


@dataclass
class Job:
    """One job of a dry run."""

    name: str  # the rule and its wildcards, by the alphabet of their names
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    command: str = ""


def snakemake(preset, *further, python=()):
    command = [sys.executable, *python, "-m", "snakemake", "--config", f"preset={preset}", *further]
    env = os.environ | {"PYTHONPATH": str(paths.ROOT)}
    return subprocess.run(command, cwd=paths.ROOT, env=env, capture_output=True, text=True, timeout=120)


def dry_run(preset, *targets) -> dict[str, Job]:
    """The jobs that Snakemake would run, without the rules that only gather."""
    done = snakemake(preset, "--dry-run", "--printshellcmds", "--", *targets)
    assert done.returncode == 0, done.stderr
    jobs = {}
    for block in re.split(r"^(?:local)?rule ", done.stdout, flags=re.MULTILINE)[1:]:
        name, rest = block.split(":", 1)
        found = dict(re.findall(r"^    (input|output|wildcards): (.*)$", rest, flags=re.MULTILINE))
        command = re.search(r"^Shell command: *(.*)$", rest, flags=re.MULTILINE) or re.search(
            r"^((?:\w+=\S+ )*(?:papermill|python) .*)$", rest, flags=re.MULTILINE
        )
        wildcards = sorted(re.findall(r"(\w+)=([\w-]+)", found.get("wildcards", "")))
        job = Job(" ".join([name, *(value for _, value in wildcards)]))
        job.inputs, job.outputs = (found[key].split(", ") if key in found else [] for key in ("input", "output"))
        job.command = command[1] if command else ""
        if job.outputs:
            jobs[job.name] = job
    return jobs


def all_jobs():
    """Those of three backbones and one seed."""
    return {
        "data", "title_prior", "memorization_probe", "tables",
        *(f"tune {llm} 0" for llm in ("trunk", "without_hints", "with_hints")),
        "instruction_tuning 0", "prompt_augmentation 0",
        *(f"data_augmentation {kind} 0" for kind in MADE.values()),
        *(f"backbone {fit} {name} 0" for name in BACKBONES for fit in ("base", "out_of_fold", "augmented")),
        *(f"ask {fit} {llm} {name} 0" for name in BACKBONES for fit, llms in LLMS.items() for llm in llms),
        *(f"second_opinion base {name} {opinion} 0" for name in BACKBONES for opinion in FREE[name]),
        *(f"aggregation {name} 0" for name in BACKBONES),
    }  # fmt: skip


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """The jobs of preset smoke, from nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA4REC_RESULTS", str(tmp_path_factory.mktemp("smoke")))
        yield dry_run("smoke")


def write_own(folder, last_rating=3):
    plays = [(u, i, 1 + (u + i) % 5, i) for u in range(3) for i in range(20)]
    plays[-1] = (*plays[-1][:2], last_rating, plays[-1][3])
    pd.DataFrame(plays, columns=["user", "item", "rating", "time"]).to_csv(folder / "plays.csv", index=False)
    pd.DataFrame({"item": range(20), "title": [f"Song {i}" for i in range(20)]}).to_csv(
        folder / "songs.csv", index=False
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run on own data whose files are all there, as if made; not one of them holds anything."""
    folder = tmp_path_factory.mktemp("own")
    write_own(folder)
    (folder / "mine.yaml").write_text(MINE, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLAMA4REC_RESULTS", str(folder / "results"))
        run = Run.open(folder / "mine.yaml")
        for job in dry_run(run.asked).values():
            for path in job.outputs:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                open(path, "w").close()
        yield run


def test_a_smoke_run_is_these_jobs(smoke):
    assert set(smoke) == all_jobs()


def test_every_row_asks_for_its_fit_and_whose_opinion_it_is_and_none_twice(results, tmp_path):
    """w/o DA, w/o PA and random DA add three questions to an LLM, and a control fit."""
    rows = "rows: [Base, IFT, Llama4Rec, w/o DA, w/o PA, w/o AA, random DA]\nbackbones: [SASRec]\n"
    (tmp_path / "rows.yaml").write_text("data: {name: ml-100k}\n" + rows, encoding="utf-8")
    jobs = dry_run(tmp_path / "rows.yaml")
    about = {name.rsplit(" ", 2)[0] for name in jobs if name.startswith(("ask ", "second_opinion"))}
    assert about == {"ask base untuned", "ask base without_hints", "ask base with_hints", "ask augmented without_hints",
                     "ask augmented with_hints", "ask random with_hints"}  # fmt: skip
    fits = {name for name in jobs if name.startswith("backbone ") and "SASRec" in name}
    assert fits == {f"backbone {fit} SASRec 0" for fit in ("base", "out_of_fold", "augmented", "random")}
    assert {name for name in jobs if name.startswith(("data_aug", "control_aug"))} == {
        "data_augmentation insertions 0", "control_augmentation random insertions 0",
    }  # fmt: skip


def test_both_llms_are_tuned_from_the_trunk_and_neither_from_the_other(smoke):
    def files(job):
        return {path.split("/smoke/")[1] for path in job.inputs}

    assert files(smoke["tune trunk 0"]) == {"data/dataset.json"}  # no backbone: hints come later
    writers = {f"backbones/{name}-s0/out_of_fold/predictions.parquet" for name in BACKBONES}
    trunk = {path.split("/smoke/")[1] for path in smoke["tune trunk 0"].outputs}
    for name in ("tune without_hints 0", "tune with_hints 0"):
        assert files(smoke[name]) == writers | trunk and "llm/trunk-s0/model.safetensors" in trunk
    assert files(smoke["data_augmentation attributes 0"]) == {"data/dataset.json"}  # the untuned LLM's
    for kind in ("pairs", "insertions"):
        assert files(smoke[f"data_augmentation {kind} 0"]) == {"data/dataset.json", "llm/without_hints-s0/tuning.json"}


def test_each_file_has_one_rule(smoke, monkeypatch, tmp_path):
    """Asked for every file by its name, Snakemake finds one rule that makes it, the one that made it in the run."""
    written = [path for job in smoke.values() for path in job.outputs]
    assert len(written) == len(set(written))
    run = written[0].split("/runs/")[0]
    monkeypatch.setenv("LLAMA4REC_RESULTS", run)
    again = dry_run("smoke", *written)
    assert {name: job.outputs for name, job in again.items()} == {name: job.outputs for name, job in smoke.items()}


def test_base_rows_and_other_ways_of_ranking_write_files_of_their_own(smoke, monkeypatch):
    runs = next(iter(smoke.values())).outputs[0].split("/runs/")[0]
    monkeypatch.setenv("LLAMA4REC_RESULTS", runs)
    ways = [
        f"{runs}/runs/smoke/scores/ways/LightGCN-{way}-s0.json"
        for way in ("likelihood", "yes_no", "letters", "listwise")
    ]
    further = dry_run("smoke", "base", *ways)
    assert sum(name.startswith("base_row ") for name in further) == (
        2 * 5 * len(PAPER_BACKBONES) + len(BASELINES) + 2 * len(BACKBONES)
    )
    written = [path for name, job in (smoke | further).items() for path in job.outputs]
    assert len(written) == len(set(written))


def test_a_control_fit_is_fitted_on_what_no_llm_made(smoke, monkeypatch):
    runs = smoke["data"].outputs[0].split("/runs/")[0]
    monkeypatch.setenv("LLAMA4REC_RESULTS", runs)
    fits = [f"{runs}/runs/smoke/backbones/SASRec-s0/{fit}/predictions.parquet" for fit in ("random", "popular")]
    jobs = dry_run("smoke", *fits)
    assert not any(name.startswith("backbone augmented") for name in jobs)
    for fit in ("random", "popular"):
        control = jobs[f"control_augmentation {fit} insertions 0"]
        assert control.inputs == [f"{runs}/runs/smoke/augmentation/insertions-s0.csv"]
        assert set(control.outputs) < set(jobs[f"backbone {fit} SASRec 0"].inputs)
    assert {name for name in jobs if name.startswith(("data_aug", "ask"))} == {"data_augmentation insertions 0"}
    assert not any(name.startswith("tune with_hints") for name in jobs)


def test_a_second_opinion_needs_the_fit_it_is_about_and_no_llm(smoke, monkeypatch):
    runs = next(iter(smoke.values())).outputs[0].split("/runs/")[0]
    monkeypatch.setenv("LLAMA4REC_RESULTS", runs)
    asked = [("SASRec", name) for name in BASELINES if name != "Bias"] + [("DeepFM", "Bias")]
    jobs = dry_run("smoke", *(f"{runs}/runs/smoke/scores/{name}-base-{other}-s0.parquet" for name, other in asked))
    for name, other in asked:
        job = jobs.pop(f"second_opinion base {name} {other} 0")
        assert [path.split("/smoke/")[1] for path in job.inputs] == [f"backbones/{name}-s0/base/predictions.parquet"]
        assert job.command.endswith(f"second_opinion.py smoke {name} base {other} 0")
    assert set(jobs) == {"data", "backbone base SASRec 0", "backbone base DeepFM 0"}  # no LLM, no prior


class Required(Exception):
    """Ends a notebook's first cell where it has said which files it needs."""


def test_every_file_that_a_notebook_requires_is_an_input_of_its_rule_and_what_it_makes_an_output(
    smoke, results, monkeypatch
):
    """The first cell of each notebook is run with the parameters of each of its jobs, up to `run.require`."""

    def require(run, *names, makes=()):
        raise Required(names, makes)

    monkeypatch.setattr(Run, "require", require)
    seen = set()
    for job in smoke.values():
        words = shlex.split(job.command.split(" && ")[0])
        if "papermill" not in words:
            continue
        (source,) = [word for word in words if word.startswith("notebooks/") and word.endswith(".ipynb")]
        given = {}
        for number, word in enumerate(words):
            if word == "-p":
                given[words[number + 1]] = yaml.safe_load(words[number + 2])
            if word == "-y":
                given |= yaml.safe_load(words[number + 1])
        cells = [c for c in nbformat.read(paths.ROOT / source, as_version=4).cells if c.cell_type == "code"]
        imports = int(cells[1].id == "imports")  # whether they have a cell of their own
        parameters, first = cells[0], "\n".join(cell.source for cell in cells[1 : 2 + imports])
        known = {}
        exec(parameters.source, known)
        assert set(given) <= set(known), f"{source} does not know a parameter of {job.name}"  # papermill only warns
        with pytest.raises(Required) as said:
            exec(first, known | given)
        names, makes = said.value.args
        inputs, outputs = ({path.split("/runs/smoke/")[1] for path in files} for files in (job.inputs, job.outputs))
        assert set(names) <= inputs, job.name
        assert set(makes) <= outputs, job.name
        seen.add(source.split("/")[1][:2])
    assert seen == {"01", "02", "03", "04", "05", "06", "09"}


def test_a_dry_run_waits_for_nobody_and_imports_no_torch(results):
    held = lock(results / "runs" / "smoke")
    done = snakemake("smoke", "-np", python=["-X", "importtime"])  # with short options in one word, as people type them
    os.close(held)
    assert done.returncode == 0 and "another workflow" not in done.stdout + done.stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "llama4rec_core.run" in imported and not imported & {"torch", "transformers", "matplotlib"}


def test_rating_answers_without_hints_wait_for_those_of_the_first_backbone(results):
    jobs = dry_run("laptop", f"{results}/runs/laptop/scores/NFM-base-without_hints-s0.parquet")
    first = [file for file in jobs["ask base without_hints NFM 0"].inputs if "/scores/" in file]
    assert [file.split("/scores/")[1] for file in first] == ["DeepFM-base-without_hints-s0.parquet"]
    assert "ask base without_hints DeepFM 0" in jobs


def test_a_published_run_is_unpacked_and_neither_fits_tunes_nor_asks(results):
    jobs = dry_run("published")
    assert {name.split()[0] for name in jobs} == {"data", "unpack", "aggregation", "ablations", "tables"}
    assert any(file.endswith("published/s0/record.json") for file in jobs["unpack"].inputs)


def test_an_llm_that_is_not_tuned_is_asked_as_it_is_and_nothing_is_fitted_for_tuning(results, tmp_path):
    (tmp_path / "mine.yaml").write_text("tuning: {method: none}\n", encoding="utf-8")
    jobs = dry_run(str(tmp_path / "mine.yaml"))
    assert not [name for name in jobs if name.startswith(("tune", "instruction", "prompt")) or "out_of_fold" in name]
    assert {
        f"ask {which} {name} 0" for name in BACKBONES for which in ("base without_hints", "augmented with_hints")
    } < set(jobs)
    asked = jobs["ask augmented with_hints SASRec 0"].inputs
    assert {file.rpartition("/")[2] for file in asked} == {"predictions.parquet", "prior.parquet"}


def test_an_llm_that_another_run_tuned_is_taken_from_it(results, tmp_path):
    (tmp_path / "mine.yaml").write_text("tuning: {taken_from: theirs}\n", encoding="utf-8")
    theirs = results / "runs" / "theirs" / "llm"
    for which in ("trunk", "without_hints", "with_hints"):
        (theirs / f"{which}-s0").mkdir(parents=True)
        for file in ("tuning.json", "curve.csv", "config.json", "model.safetensors"):
            (theirs / f"{which}-s0" / file).touch()
    jobs = dry_run(str(tmp_path / "mine.yaml"))
    assert not [name for name in jobs if name.startswith(("tune", "instruction", "prompt")) or "out_of_fold" in name]
    taken = jobs["take_llm with_hints 0"]
    assert f"{theirs}/with_hints-s0/model.safetensors" in taken.inputs
    assert any(
        file.endswith("/runs/mine/llm/with_hints-s0/tuning.json")
        for file in jobs["ask augmented with_hints SASRec 0"].inputs
    )


def test_a_preset_of_what_was_never_published_is_refused_and_nothing_is_made_in_its_place(results, tmp_path):
    (tmp_path / "mine.yaml").write_text("published: nowhere\n", encoding="utf-8")
    done = snakemake(str(tmp_path / "mine.yaml"), "--dry-run")
    assert done.returncode != 0 and "nothing was published for a seed of this preset" in done.stdout + done.stderr


def test_nothing_is_left_to_do_in_a_finished_run(finished):
    assert dry_run(finished.asked) == {}


def test_changed_own_data_are_used_and_the_same_data_written_again_change_nothing(finished):
    folder, record = finished.folder.parents[2], finished.path("data/raw.json")
    before, when = record.read_text(), record.stat()
    write_own(folder)
    assert dry_run(finished.asked) == {}
    write_own(folder, last_rating=5)
    assert set(dry_run(finished.asked)) == all_jobs()
    write_own(folder)
    record.write_text(before)
    os.utime(record, ns=(when.st_atime_ns, when.st_mtime_ns))


def test_a_changed_setting_is_refused_in_one_sentence(finished):
    preset = finished.folder.parents[2] / "mine.yaml"
    preset.write_text(MINE + "prompts: {similar: 2}\n", encoding="utf-8")
    done = snakemake(finished.asked, "-n")
    preset.write_text(MINE, encoding="utf-8")
    assert done.returncode != 0
    said = [line for line in (done.stdout + done.stderr).splitlines() if "results/runs/mine" in line]
    assert said == [
        "results/runs/mine was made with prompts.similar = 10, the preset now says 2: delete that folder or give the "
        "preset another name"
    ]


ROW = ("ask augmented with_hints {} 0", "aggregation {} 0", "tables")


def of(name, *jobs):
    return {job.format(name) for job in jobs}


# all that depends on the trunk: LLM' and LLM'', what LLM' makes, the fits on it, and what is said about these
OF_THE_TUNED_LLMS = {
    "tune trunk 0", "tune without_hints 0", "tune with_hints 0", "instruction_tuning 0", "prompt_augmentation 0",
    "data_augmentation pairs 0",
    "data_augmentation insertions 0", "backbone augmented LightGCN 0", "backbone augmented SASRec 0",
    *(job for name in BACKBONES for job in of(name, "ask base without_hints {} 0", *ROW)),
}  # fmt: skip
# DeepFM is fitted again on attributes, which LLM' did not make
OF_LLM_1 = OF_THE_TUNED_LLMS - {
    "tune trunk 0",
    "tune with_hints 0",
    "prompt_augmentation 0",
    "ask augmented with_hints DeepFM 0",
}


@pytest.mark.parametrize("file, redone", [
    ("tables/run.json", {"tables"}),
    ("llm/memorization.csv", {"memorization_probe", "tables"}),
    ("augmentation/pairs-s0.csv",
     {"data_augmentation pairs 0", "backbone augmented LightGCN 0"} | of("LightGCN", *ROW)),
    ("backbones/SASRec-s0/augmented/predictions.parquet", {"backbone augmented SASRec 0"} | of("SASRec", *ROW)),
    ("scores/DeepFM-base-untuned-s0.parquet", {"ask base untuned DeepFM 0", "aggregation DeepFM 0", "tables"}),
    ("rows/LightGCN-s0/per_user.parquet", {"aggregation LightGCN 0", "tables"}),
    ("scores/SASRec-base-EASE-s0.parquet", {"second_opinion base SASRec EASE 0", "aggregation SASRec 0", "tables"}),
    ("augmentation/attributes-s0.json",
     {"data_augmentation attributes 0", "backbone augmented DeepFM 0"} | of("DeepFM", *ROW)),
    ("llm/prior.parquet",
     {"title_prior"} | {job for name in BACKBONES for job in of(name, "ask base untuned {} 0", *ROW[1:])}),
    ("backbones/SASRec-s0/out_of_fold/predictions.parquet",
     {"backbone out_of_fold SASRec 0"} | OF_THE_TUNED_LLMS - {"tune trunk 0"}),
    ("llm/trunk-s0/model.safetensors", OF_THE_TUNED_LLMS),
    ("llm/without_hints-s0/tuning.json", OF_LLM_1),
    ("llm/with_hints-s0/tuning.json",
     {"tune with_hints 0", "prompt_augmentation 0"} | {job for name in BACKBONES for job in of(name, *ROW)}),
    ("data/dataset.json", all_jobs()),
])  # fmt: skip
def test_a_deleted_file_redoes_what_depends_on_it_and_nothing_else(finished, file, redone):
    path = finished.path(file)
    when = path.stat()
    path.unlink()
    found = set(dry_run(finished.asked))
    path.touch()
    os.utime(path, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert found == redone
