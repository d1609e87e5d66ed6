"""The walk on a real Slurm, where this machine has one (a controller and a node on it are enough)."""

import os
import shutil
import subprocess
import sys

import pytest

from llama4rec_core import paths
from llama4rec_core.files import read_json

pytestmark = pytest.mark.slow


def has_slurm() -> bool:
    if not shutil.which("sinfo"):
        return False
    found = subprocess.run(["sinfo", "-h", "-t", "idle,mixed,allocated"], capture_output=True, text=True, timeout=30)
    return bool(found.stdout.strip())


def test_preset_smoke_runs_end_to_end_on_slurm(tmp_path):
    pytest.importorskip("snakemake_executor_plugin_slurm", reason="pip install -e '.[slurm]'")
    if not has_slurm():
        pytest.skip("no Slurm is at work on this machine")
    cores = os.cpu_count()
    fewer = [f"{rule}={cores}" for rule in ("title_prior", "memorization_probe", "tune", "instruction_tuning",
                                            "prompt_augmentation", "data_augmentation", "ask", "tables")]  # fmt: skip
    command = [sys.executable, "-m", "snakemake", "--workflow-profile", "profiles/slurm", "--slurm-status-command",
               "squeue", "--slurm-logdir", str(tmp_path / "logs"), "--latency-wait", "10", "--default-resources",
               "mem_mb=3000", "runtime=60", "--set-threads", *fewer, "--config", "preset=smoke"]  # fmt: skip
    less = [f"{rule.split('=')[0]}:mem_mb=6000" for rule in fewer]
    command[-2:-2] = ["--set-resources", *less]
    given = os.environ | {"LLAMA4REC_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(command, cwd=paths.ROOT, env=given, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Submitted job" in done.stderr or "SLURM" in done.stderr
    record = read_json(tmp_path / "results" / "runs" / "smoke" / "tables" / "run.json")
    assert record["preset"]["name"] == "smoke"
