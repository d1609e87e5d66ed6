"""What nbval compares: code cells with an output, in every notebook. (That they run is nbval's own part.)"""

from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_checked_cells_and_they_are_code_with_an_output(path):
    cells = nbformat.read(path, as_version=4).cells
    checked = [cell for cell in cells if "NBVAL_CHECK_OUTPUT" in cell.source]
    assert checked
    for cell in checked:
        assert cell.cell_type == "code" and cell.outputs
    assert not any(out.output_type == "error" for cell in cells for out in cell.get("outputs", ()))


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 9
