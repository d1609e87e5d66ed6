"""What several test files need: the real LLM, loaded once, results that go to a folder of the test's own, scripts."""

import os
import sys

import hypothesis
import pytest

from llama4rec_core import paths

hypothesis.settings.register_profile("unhurried", deadline=None)  # no test depends on how fast a machine is
hypothesis.settings.load_profile("unhurried")

sys.path.append(str(paths.ROOT / "scripts"))  # their functions are tested as those of modules
if "PYTEST_XDIST_WORKER" in os.environ:  # several processes at once: with more threads each they only wait for another
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def llm():
    """SmolLM2-135M-Instruct out of its wheel, in float32: its scores are compared with other ways of reading it."""
    import torch

    from llama4rec_core.llm import model

    return model.load(model.SMOLLM2, dtype=torch.float32)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty results folder for this test alone."""
    monkeypatch.setenv("LLAMA4REC_RESULTS", str(tmp_path / "results"))
    assert paths.results() == tmp_path / "results"
    return tmp_path / "results"
