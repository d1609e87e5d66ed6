# The run matrix: one rule per notebook, each notebook run by papermill.
#
#   snakemake                            preset quick: the first rows of Tables 2-4, about an hour on two cores
#   snakemake --config preset=smoke      a look at every step in minutes
#   snakemake base                       Base rows of every backbone, five seeds, both protocols; no LLM
#   snakemake publish                    merge the run's tables and figures into results/tables and results/figures
#
# A stage leaves whole files, so stopping and starting again continues. Settings: presets/<preset>.yaml.

import os
import shlex
from pathlib import Path

from llama4rec_core import paths, presets
from llama4rec_core.backbones import BACKBONES, YARDSTICKS
from llama4rec_core.rows import VARIANTS, variants

ASKED = str(config.get("preset", "quick"))  # a name, or the path of a YAML file
NAMED = str(Path(ASKED).resolve()) if Path(ASKED).suffix in (".yaml", ".yml") else ASKED
PRESET = presets.load(NAMED)
NAMED = shlex.quote(NAMED)
RUN = str(paths.runs() / PRESET.name)
BASE_SEEDS = [0, 1, 2, 3, 4]
ALL_BACKBONES = [name for name in BACKBONES if name not in YARDSTICKS]
HINTS = list(PRESET.hint_backbones.values())

# notebooks run headless: no bars, one process at a time (the LLM uses every core), progress lines on the terminal
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def papermill(notebook):
    """The command of a rule: {params} are what papermill injects, progress goes to the terminal."""
    return (
        "PYDEVD_DISABLE_FILE_VALIDATION=1 papermill --cwd notebooks --no-progress-bar --log-output --log-level WARNING --stdout-file /dev/stderr "
        f"--execution-timeout -1 notebooks/{notebook}.ipynb {{output.notebook}} {{params}}"
    )


def fitted(name, seed):
    return f"{RUN}/notebooks/02_{name}_s{seed}.ipynb"


wildcard_constraints:
    seed=r"\d+",


rule all:
    default_target: True
    input:
        f"{RUN}/notebooks/09_tables_and_figures.ipynb",


rule data:
    output:
        notebook=f"{RUN}/notebooks/01_data_preparation.ipynb",
    params:
        f"-p preset {NAMED}",
    threads: workflow.cores
    shell:
        papermill("01_data_preparation")


rule backbone:  # on one thread each, so as many at a time as there are cores
    input:
        rules.data.output,
    output:
        notebook=f"{RUN}/notebooks/02_{{name}}_s{{seed}}.ipynb",
    params:
        lambda w: f"-p preset {NAMED} -p backbone {w.name} -p seed {w.seed}",
    threads: 1
    shell:
        "OMP_NUM_THREADS=1 " + papermill("02_conventional_models")


rule tuning:
    input:
        lambda w: [fitted(name, w.seed) for name in HINTS],
    output:
        notebook=f"{RUN}/notebooks/03_instruction_tuning_s{{seed}}.ipynb",
    params:
        lambda w: f"-p preset {NAMED} -p seed {w.seed}",
    threads: workflow.cores
    shell:
        papermill("03_instruction_tuning")


rule data_augmentation:
    input:
        rules.tuning.output,
        lambda w: [fitted(name, w.seed) for name in PRESET.backbones],
    output:
        notebook=f"{RUN}/notebooks/04_data_augmentation_s{{seed}}.ipynb",
    params:
        lambda w: f"-p preset {NAMED} -p seed {w.seed}",
    threads: workflow.cores
    shell:
        papermill("04_data_augmentation")


rule prompt_augmentation:
    input:
        rules.data_augmentation.output,
    output:
        notebook=f"{RUN}/notebooks/05_prompt_augmentation_s{{seed}}.ipynb",
    params:
        lambda w: f"-p preset {NAMED} -p seed {w.seed}",
    threads: workflow.cores
    shell:
        papermill("05_prompt_augmentation")


rule aggregation:
    input:
        rules.prompt_augmentation.output,
    output:
        notebook=f"{RUN}/notebooks/06_{{name}}_s{{seed}}.ipynb",
    params:
        lambda w: f"-p preset {NAMED} -p backbone {w.name} -p seed {w.seed}",
    threads: workflow.cores
    shell:
        papermill("06_adaptive_aggregation")


rule tables:
    input:
        [f"{RUN}/notebooks/06_{name}_s{seed}.ipynb" for name in PRESET.backbones for seed in PRESET.seeds],
    output:
        notebook=f"{RUN}/notebooks/09_tables_and_figures.ipynb",
    params:
        f"-p preset {NAMED}",
    threads: workflow.cores
    shell:
        papermill("09_tables_and_figures") + f" && python -m llama4rec_core.report show {NAMED}"


rule variant:
    input:
        rules.data.output,
    output:
        f"{RUN}-{{variant}}/rows/{{name}}-s{{seed}}/base.parquet",
    wildcard_constraints:
        variant="|".join(VARIANTS),
    threads: 1
    shell:
        f"OMP_NUM_THREADS=1 python -m llama4rec_core.report variant {NAMED} {{wildcards.variant}} {{wildcards.name}} {{wildcards.seed}}"


rule base:
    input:
        [fitted(name, seed) for name in ALL_BACKBONES for seed in BASE_SEEDS],
        [
            f"{RUN}-{variant}/rows/{name}-s{seed}/base.parquet"
            for variant in variants(PRESET.data)
            for name in (ALL_BACKBONES if variant == "rolling" else PRESET.backbones)
            for seed in (BASE_SEEDS if variant == "rolling" else BASE_SEEDS[:1])
        ],
    shell:
        f"python -m llama4rec_core.report base {NAMED}"


rule publish:
    input:
        rules.all.input,
    shell:
        f"python -m llama4rec_core.report publish {NAMED}"
