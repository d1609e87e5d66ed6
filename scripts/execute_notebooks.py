"""Execute the committed notebooks in place, with their committed parameters, and stamp them with the code that ran.

    python scripts/execute_notebooks.py [NOTEBOOK ...]

A test compares the stamp with the package and the notebook as they are: no committed output is older than the code.
"""

import hashlib
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from llama4rec_core import paths


def stamp(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of the package's code and of the notebook's own cells."""
    digest = hashlib.sha256()
    for path in sorted((paths.ROOT / "llama4rec_core").rglob("*.py")):
        digest.update(path.relative_to(paths.ROOT).as_posix().encode() + path.read_bytes())
    for cell in notebook.cells:
        digest.update(cell.source.encode())
    return digest.hexdigest()


def main(names: list[str]) -> None:
    for path in map(Path, names or sorted((paths.ROOT / "notebooks").glob("*.ipynb"))):
        notebook = nbformat.read(path, as_version=4)
        NotebookClient(
            notebook, timeout=None, record_timing=False, resources={"metadata": {"path": path.parent}}
        ).execute()
        notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
        notebook.metadata["llama4rec"] = {"executed_with": stamp(notebook)}
        nbformat.write(notebook, path)
        print(path.name, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
