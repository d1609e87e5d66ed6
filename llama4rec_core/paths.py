"""Where things lie, from the package's own place, and which code lies there.

Two environment variables move the two folders that grow: `LLAMA4REC_CACHE` (downloads and converted weights, shared
between clones, safe to delete) and `LLAMA4REC_RESULTS` (what runs write).
"""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def cache() -> Path:
    return Path(os.environ.get("LLAMA4REC_CACHE") or Path.home() / ".cache" / "llama4rec")


def results() -> Path:
    return Path(os.environ.get("LLAMA4REC_RESULTS") or ROOT / "results")


def runs() -> Path:
    """One folder per preset, ignored by git."""
    return results() / "runs"


def presets() -> Path:
    return ROOT / "presets"


def commit() -> str:
    """Of the code that runs, with "-dirty" where it was changed since (results and texts are none); "" outside a git
    repository."""

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        changed = git("diff", "HEAD", "--name-only", "--", "*.py", "*.ipynb", "*.yaml", "Snakefile")
        return git("describe", "--always", "--abbrev=12") + ("-dirty" if changed else "")
    except (OSError, subprocess.TimeoutExpired):
        return ""
