"""A run that is killed goes on by the same command, and ends with the same files. Preset smoke, the real LLM.

The straight run that the killed one is compared with is made here; LLAMA4REC_STRAIGHT names the folder of one that the
same code made (its results/runs/smoke).
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from llama4rec_core import paths
from llama4rec_core.files import read_frame, read_tensors

RANDOM_KILLS = 12
PLACES = {  # a kill in each of these besides, within seconds of its start: what the command lines of the jobs hold
    "the data": r"01_data",
    "fitting a backbone": r"02_\w+_base",
    "tuning the trunk": r"tune smoke trunk",
    "tuning LLM'": r"tune smoke without_hints",
    "letting LLM' write": r"04_",
    "fitting on augmented data": r"02_\w+_augmented",
    "tuning LLM''": r"tune smoke with_hints",
    "asking LLM''": r"ask\.py .* with_hints",
    "choosing weights": r"06_",
    "the tables": r"09_",
}
COMMAND = [sys.executable, "-m", "snakemake", "--config", "preset=smoke"]
SPENT = {"seconds", "prompts_sent", "tokens_read", "tokens_written", "logits", "batches"}  # what a kill may change

pytestmark = [pytest.mark.slow, pytest.mark.llm, pytest.mark.data]


def start(results: Path, *further: str) -> subprocess.Popen:
    """The workflow in a session of its own; what it says is appended to a file beside its results."""
    env = os.environ | {"LLAMA4REC_RESULTS": str(results), "PYTHONPATH": str(paths.ROOT)}
    results.mkdir(parents=True, exist_ok=True)
    with open(results / "said.txt", "ab") as said:
        return subprocess.Popen(
            [*COMMAND, *further], cwd=paths.ROOT, env=env, stdout=said, stderr=said, start_new_session=True
        )


def finish(results: Path, *further: str) -> None:
    process = start(results, *further)
    assert process.wait(timeout=2400) == 0, (results / "said.txt").read_text(errors="replace")[-4000:]


def tree(process: subprocess.Popen) -> list[psutil.Process]:
    """A process and all that it started, and they started."""
    try:
        top = psutil.Process(process.pid)
        return [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def at_work(processes: list[psutil.Process]) -> str:
    """Which jobs run: the executed notebooks and the scripts' arguments."""
    found = set()
    for process in processes:
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if process.name() not in ("sh", "bash") and (job := re.search(r"/notebooks/(\S+)\.ipynb|scripts/(.*)", line)):
            found.add(job[1] or job[2])
    return ", ".join(sorted(found)) or "Snakemake alone"


def kill_all(process: subprocess.Popen) -> str:
    """SIGKILL to the whole tree at once: all are stopped first, so that none starts another meanwhile."""
    stopped: dict[int, psutil.Process] = {}
    while new := [each for each in tree(process) if each.pid not in stopped]:
        for each in new:
            stopped[each.pid] = each
            try:
                each.suspend()
            except psutil.NoSuchProcess:
                pass
    jobs = at_work(list(stopped.values()))
    for each in stopped.values():
        try:
            each.kill()
        except psutil.NoSuchProcess:
            pass
    process.wait()
    psutil.wait_procs(list(stopped.values()), timeout=10)
    return jobs


def values(run: Path) -> dict[str, object]:
    """What a run found, file by file, without the time and the tokens that it took."""
    found: dict[str, object] = {}
    for path in sorted(run.rglob("*")):
        name = path.relative_to(run).as_posix()
        if "/." in f"/{name}" or "/ways/" in name or name in ("tables/cost.csv", "settings.json"):
            continue
        if path.suffix in (".parquet", ".csv"):
            found[name] = read_frame(path).drop(columns=["seconds"], errors="ignore")
        elif path.suffix == ".safetensors":
            found[name] = {key: tensor.numpy() for key, tensor in read_tensors(path).items()}
        elif path.suffix == ".json" and not name.startswith("tables/"):
            content = json.loads(path.read_text())
            found[name] = {key: value for key, value in content.items() if key not in SPENT}
    return found


def assert_same(run: Path, straight: Path) -> None:
    ours, theirs = values(run), values(straight)
    assert ours.keys() == theirs.keys()
    for name, found in ours.items():
        if isinstance(found, pd.DataFrame):
            pd.testing.assert_frame_equal(found, theirs[name], check_exact=True, obj=name)
        elif name.endswith(".safetensors"):
            assert found.keys() == theirs[name].keys(), name
            for key, tensor in found.items():
                np.testing.assert_array_equal(tensor, theirs[name][key], err_msg=f"{name}, {key}")
        else:
            assert found == theirs[name], name


def assert_is_whole_offline(page: str) -> None:
    """Snakemake's report loads nothing from elsewhere and holds the run's tables and figures."""
    assert not re.findall(r"""<(?:script|link|img)[^>]*(?:src|href)=["']?(?:https?:)?//""", page)
    for category in ("Data", "Backbones", "LLM", "Data augmentation", "Aggregation", "Tables", "Cost"):
        assert f'"{category}": {{' in page
    for file in ("table_2_direct.csv", "forest_direct.png", "pairs-s0.csv", "alpha_SASRec_s0.png", "memorization.csv"):
        assert file in page


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    """A run that nothing stopped."""
    if there := os.environ.get("LLAMA4REC_STRAIGHT"):
        return Path(there)
    results = tmp_path_factory.mktemp("straight")
    finish(results)
    return results / "runs" / "smoke"


def test_a_run_killed_more_than_twenty_times_ends_with_the_files_of_one_that_was_not(straight, tmp_path):
    draw, kills, left = random.Random(0), [], dict(PLACES)
    while True:
        process, why = start(tmp_path), "at random"
        at = time.monotonic() + (draw.uniform(3, 25) if len(kills) - len(PLACES) + len(left) < RANDOM_KILLS else np.inf)
        while process.poll() is None and time.monotonic() < at:
            time.sleep(0.3)
            jobs = at_work(tree(process)) if why == "at random" else ""
            for place in [name for name, pattern in left.items() if re.search(pattern, jobs)][:1]:
                del left[place]
                at, why = min(at, time.monotonic() + draw.uniform(0, 6)), place
        if process.poll() is not None:
            break
        kills.append((kill_all(process), why))
        print(len(kills), *kills[-1], sep=" | ", flush=True)
    said = (tmp_path / "said.txt").read_text(errors="replace")
    assert process.returncode == 0, said[-4000:]
    assert len(kills) == RANDOM_KILLS + len(PLACES)
    assert "LockException" not in said and "--unlock" not in said
    run = tmp_path / "runs" / "smoke"
    assert_same(run, straight)
    assert not [*run.glob("llm/.with*"), *run.glob("llm/.trunk*")]  # intermediate checkpoints are gone

    page = tmp_path / "run.html"
    finish(tmp_path, "--report", str(page))
    assert_is_whole_offline(page.read_text(encoding="utf-8"))


def test_a_job_that_outlives_a_killed_snakemake_is_waited_for(straight, tmp_path):
    """Only Snakemake is killed: the job it had started goes on, and holds the run's lock until it has ended."""
    run = tmp_path / "runs" / "smoke"
    target = ("--", str(run / "llm" / "prior.parquet"))
    process = start(tmp_path, *target)
    while "untuned_llm.py" not in at_work(tree(process)):
        assert process.poll() is None
        time.sleep(0.1)
    left = tree(process)[1:]
    process.kill()
    process.wait()
    assert any(each.is_running() for each in left)
    finish(tmp_path, *target)
    assert not any(each.is_running() for each in left)
    assert "another workflow is at work in smoke" in (tmp_path / "said.txt").read_text(errors="replace")
    ours, theirs = values(run), values(straight)
    pd.testing.assert_frame_equal(ours["llm/prior.parquet"], theirs["llm/prior.parquet"], check_exact=True)
