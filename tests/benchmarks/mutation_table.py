"""How many small changes of the method's code make a fast test fail: `results/benchmarks/mutation.csv`.

    pip install mutmut
    mutmut run --max-children 1 && python tests/benchmarks/mutation_table.py

mutmut's settings stand in pyproject.toml. Columns: module, mutants (those that were run), killed, share. A mutant that
no test reaches, or that makes a test hang, counts as what mutmut says of it: not killed, and killed.
"""

import json
from pathlib import Path

import pandas as pd

from llama4rec_core import paths
from llama4rec_core.files import write_frame

NOT_RUN, SURVIVED = None, (0, 33)  # mutmut's exit codes; 33: no test reaches it


def rows(folder: Path) -> pd.DataFrame:
    out = []
    for path in sorted(folder.rglob("*.py.meta")):
        codes = json.loads(path.read_text(encoding="utf-8"))["exit_code_by_key"].values()
        run = [code for code in codes if code is not NOT_RUN]
        killed = sum(code not in SURVIVED for code in run)
        module = path.relative_to(folder).as_posix().removesuffix(".py.meta")
        if run:
            out.append((module, len(run), killed, round(killed / len(run), 3)))
    return pd.DataFrame(out, columns=["module", "mutants", "killed", "share"])


if __name__ == "__main__":
    made = rows(paths.ROOT / "mutants" / "llama4rec_core")
    write_frame(paths.results() / "benchmarks" / "mutation.csv", made)
    print(made.to_string(index=False))
