"""The form of the committed notebooks, and what nbval compares in them. (That they run is nbval's own part.)"""

import json
import re

import nbformat
import pytest
import yaml
from execute_notebooks import stamp

from llama4rec_core import paths

NOTEBOOKS = sorted((paths.ROOT / "notebooks").glob("*.ipynb"))
PUBLISHED = ("06", "07", "08", "09", "11")  # those that read what was published
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
IMPORTS = r"(?:(?:from .* )?import .*\n?|\n)*"  # of a cell with nothing else
ABSOLUTE = r"(?<![\w:/.<])(?:/(?:home|root|tmp|work|Users|usr|opt|mnt|var|data)/|[A-Z]:\\\\)\w+"


def cells_of(path, kind=("code", "markdown")):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type in kind]


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 9


@each_notebook
def test_a_notebook_has_checked_cells_and_they_are_code_with_an_output(path):
    checked = [cell for cell in cells_of(path) if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    assert all(cell.cell_type == "code" and cell.outputs for cell in checked)


@each_notebook
def test_no_output_of_a_notebook_is_an_error_or_holds_an_absolute_path(path):
    for cell in cells_of(path, ["code"]):
        for output in cell.outputs:
            assert output.output_type != "error"
            said = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
            assert not re.findall(ABSOLUTE, json.dumps(said) + output.get("text", ""))


@pytest.mark.parametrize("text, found", [
    ("in /" + "home/someone/llama4rec", True), ("'/" + "tmp/x.csv'", True), ("C:\\\\Users", True),
    ("results/runs/smoke", False), ("https://arxiv.org/data/x", False), ("</div>", False), ("HR@5/NDCG@5", False),
])  # fmt: skip
def test_an_absolute_path_is_recognised(text, found):
    assert bool(re.search(ABSOLUTE, text)) == found


@each_notebook
def test_a_notebook_has_one_cell_of_parameters_with_its_preset_and_any_python_3_runs_it(path):
    first, *others = cells_of(path, ["code"])
    assert "parameters" in first.metadata.get("tags", [])
    assert not any("parameters" in cell.metadata.get("tags", []) for cell in others)
    values = dict(line.split(" = ") for line in first.source.splitlines())
    assert yaml.safe_load(values["preset"]) == ("published" if path.stem[:2] in PUBLISHED else "smoke")
    assert nbformat.read(path, as_version=4).metadata.kernelspec.name == "python3"


@each_notebook
def test_the_first_cell_after_the_parameters_says_which_files_a_notebook_needs(path):
    first = next(cell.source for cell in cells_of(path, ["code"])[1:] if not re.fullmatch(IMPORTS, cell.source))
    assert "run = Run.open(preset)" in first and "run.require(" in first


@each_notebook
def test_no_code_cell_is_longer_than_25_lines(path):
    assert all(len(cell.source.splitlines()) <= 25 for cell in cells_of(path, ["code"]))


@each_notebook
def test_a_notebook_was_executed_by_the_code_as_it_is(path):
    notebook = nbformat.read(path, as_version=4)
    assert notebook.metadata["llama4rec"]["executed_with"] == stamp(notebook), "python scripts/execute_notebooks.py"
