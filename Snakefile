# The workflow: which step reads and writes which files. There is no other.
#
#   snakemake                            preset quick: the first rows of Tables 2-4
#   snakemake --config preset=smoke      a look at every step in minutes
#   snakemake --config preset=laptop 'backbones=[LightGCN]' 'seeds=[0]'      the same with other settings
#   snakemake base                       Base rows of every backbone, five seeds, both protocols; no LLM
#   snakemake publish                    merge the run's tables and figures into results/
#   snakemake --report run.html          one page about the run
#
# A run can be stopped, or killed, at any moment: the same command goes on. Settings: presets/<preset>.yaml.

import os
import re
import shlex
import sys

from llama4rec_core.backbones import BASELINES, PAPER_BACKBONES, task_of
from llama4rec_core.presets import WAYS, as_dict, needs_prior
from llama4rec_core.run import INSIDE, Run, lock
from llama4rec_core.tasks import TASKS, additions
from llama4rec_core.variants import LLMS, asked, rows_of
from snakemake.exceptions import WorkflowError

ASKED = Run.open(str(config.get("preset", "quick")))  # a name, or the path of a YAML file
if others := {key: value for key, value in config.items() if key not in ("preset", "launcher")}:
    ASKED = ASKED.but(others)
PRESET, RUN, NAMED = ASKED.preset, ASKED.target(), shlex.quote(ASKED.asked)
LOOKING = re.compile(  # who only looks waits for nobody
    "--(dry-?run|dag|rulegraph|filegraph|report|summary|detailed-summary|list-.*|lint)|-[pqrFf]*n[pqrFf]*|-[SDl]"
)
if workflow.is_main_process and not any(map(LOOKING.fullmatch, sys.argv)):
    LOCK = lock(ASKED.folder)
    shell._process_args["pass_fds"] = [LOCK]  # a job that outlives a killed Snakemake holds the lock until it ends

WRITERS = {task: name for task, name in as_dict(PRESET)["out_of_fold"].items() if name}  # who writes training hints
PRIOR = [f"{RUN}/llm/prior.parquet"] if needs_prior(PRESET) else []
DATA = f"{RUN}/data/dataset.json"
FIT_FILES = ("predictions.parquet", "user_embeddings.safetensors", "log.csv")
LLM_FILES = ("tuning.json", "curve.csv", "config.json", "model.safetensors")
ROW_FILES = ("per_user.parquet", "choice.json", "grid.csv", "within.csv", "look.json")
TUNED = ("trunk", "without_hints", "with_hints") if PRESET.tuning.method != "none" else ()
EACH = dict(name=PRESET.backbones, seed=PRESET.seeds)
MADE = [TASKS[task].made for task in dict.fromkeys(map(task_of, PRESET.backbones))]
BASE_SEEDS = range(5)
LAUNCHER = config.get("launcher", "python -m")  # of tuning: accelerate launch --config_file ... -m, say
CORES = workflow.resource_settings.cores or 8  # of one LLM job; on a cluster the profile's `set-threads` says otherwise
OTHER = "leave-one-out" if PRESET.data.protocol == "rolling" else "rolling"  # the protocol beside the preset's own


def papermill(notebook):
    """The command of a rule: {params} are what papermill injects, progress goes to the terminal."""
    return (
        f"{INSIDE}=1 TOKENIZERS_PARALLELISM=false PYDEVD_DISABLE_FILE_VALIDATION=1 papermill --cwd notebooks "
        "--no-progress-bar --log-output --log-level WARNING --stdout-file /dev/stderr --execution-timeout -1 "
        f"notebooks/{notebook}.ipynb {{output.notebook:q}} -p preset {NAMED} {{params}}"
    )


def backbone(name, seed, fit):
    return f"{RUN}/backbones/{name}-s{seed}/{fit}/predictions.parquet"


def writers(wildcards):
    return [backbone(name, wildcards.seed, "out_of_fold") for name in WRITERS.values()]


def made(wildcards):
    """What a fit adds to the data."""
    return [f"{RUN}/{file}" for file in additions(task_of(wildcards.name), wildcards.fit, wildcards.seed)]


def checkpoint(llm, seed):
    """What an LLM ranks with: its tuning, or the untuned one's prior of titles."""
    return f"{RUN}/llm/{llm}-s{seed}/tuning.json" if llm in TUNED else PRIOR


def tuned(checkpoint, seed):
    return [f"{RUN}/llm/{checkpoint}-s{seed}/{file}" for file in LLM_FILES]


def first(wildcards):
    """What must be asked before: the first rating backbone's, whose answers without hints serve them all."""
    names = [name for name in PRESET.backbones if task_of(name) == "rating"]
    mine = (wildcards.name, wildcards.fit)
    if wildcards.llm == "with_hints" or wildcards.name not in names or mine == (names[0], "base"):
        return []
    return f"{RUN}/scores/{names[0]}-base-{wildcards.llm}-s{wildcards.seed}.parquet"


def fits(name):
    """Of a backbone, those that its rows put together with an opinion."""
    return sorted({variant.fit for variant in rows_of(PRESET.rows_of(name), task_of(name)).values()})


def opinions(name, seed, ending="parquet", whose=None):
    """What LLMs and baselines (or only those of `whose`) say about a backbone's lists or ratings."""
    found = asked(PRESET.rows_of(name), task_of(name))
    return [f"{RUN}/scores/{name}-{fit}-{by}-s{seed}.{ending}" for fit, by in found if by in (whose or [by])]


def all_opinions(ending, whose=None):
    """The same of every backbone and seed."""
    return [file for name in PRESET.backbones for seed in PRESET.seeds for file in opinions(name, seed, ending, whose)]


def picture(name, category):
    return report(f"{RUN}/figures/{name}.png", category=category)


wildcard_constraints:
    seed=r"\d+",
    name=r"\w+",
    fit="base|out_of_fold|augmented|random|popular",
    control="random|popular",
    llm="untuned|without_hints|with_hints",
    checkpoint="trunk|without_hints|with_hints",
    way="|".join(WAYS),
    kind="pairs|insertions|attributes",
    variant=r"as-set|leave-one-out|rolling|ties-reverse|ties-random",


rule data:
    input:
        ASKED.note_raw_files(),
    output:
        notebook=f"{RUN}/notebooks/01_data_preparation.ipynb",
        data=DATA,
        tables=[f"{RUN}/data/{name}.parquet" for name in ("interactions", "users", "items")],
        split=f"{RUN}/data/split.json",
        table=report(f"{RUN}/data/table_1.csv", category="Data"),
        picture=picture("long_tail", "Data"),
    params:
        "",
    shell:
        papermill("01_data_preparation")


rule backbone:  # on one thread each, so as many at a time as there are cores
    input:
        DATA,
        made,
    output:
        notebook=f"{RUN}/notebooks/02_{{name}}_s{{seed}}_{{fit}}.ipynb",
        files=[f"{RUN}/backbones/{{name}}-s{{seed}}/{{fit}}/{file}" for file in FIT_FILES],
        picture=picture("training_{name}_s{seed}_{fit}", "Backbones"),
    params:
        "-p backbone {name} -p seed {seed} -p fit {fit}",
    threads: 1
    shell:
        "OMP_NUM_THREADS=1 " + papermill("02_conventional_models")


rule title_prior:
    input:
        DATA,
    output:
        f"{RUN}/llm/prior.parquet",
    threads: CORES
    shell:
        f"python scripts/untuned_llm.py {NAMED} prior"


rule memorization_probe:
    input:
        DATA,
    output:
        report(f"{RUN}/llm/memorization.csv", category="LLM"),
    threads: CORES
    shell:
        f"python scripts/untuned_llm.py {NAMED} memorization"


rule tune:  # the trunk, or from it LLM' or LLM''; a launcher spreads it over several processes
    input:
        lambda w: DATA if w.checkpoint == "trunk" else [*writers(w), *tuned("trunk", w.seed)],
    output:
        tuned("{checkpoint}", "{seed}"),
    threads: CORES
    shell:
        f"{LAUNCHER} llama4rec_core tune {NAMED} {{wildcards.checkpoint}} {{wildcards.seed}}"


rule instruction_tuning:  # what LLM' has learnt
    input:
        writers,
        lambda w: [*tuned("trunk", w.seed), *tuned("without_hints", w.seed)],
    output:
        notebook=f"{RUN}/notebooks/03_instruction_tuning_s{{seed}}.ipynb",
        picture=picture("tuning_without_hints_s{seed}", "LLM"),
    params:
        "-p seed {seed}",
    threads: CORES
    shell:
        papermill("03_instruction_tuning")


rule data_augmentation:  # P1, P2 or P3
    input:
        DATA,
        lambda w: [] if w.kind == "attributes" else checkpoint("without_hints", w.seed),
    output:
        notebook=f"{RUN}/notebooks/04_{{kind}}_s{{seed}}.ipynb",
        table=report(f"{RUN}/augmentation/{{kind}}-s{{seed}}.csv", category="Data augmentation"),
        cost=f"{RUN}/augmentation/{{kind}}-s{{seed}}.json",
    params:
        lambda w: f"-p seed {w.seed} -y 'tasks: [{next(t.name for t in TASKS.values() if t.made == w.kind)}]'",
    threads: CORES
    shell:
        papermill("04_data_augmentation")


rule control_augmentation:  # as many additions without an LLM
    input:
        f"{RUN}/augmentation/{{kind}}-s{{seed}}.csv",
    output:
        f"{RUN}/augmentation/{{kind}}-{{control}}-s{{seed}}.csv",
    threads: 1
    shell:
        f"python scripts/control_augmentation.py {NAMED} {{wildcards.kind}} {{wildcards.control}} {{wildcards.seed}}"


rule prompt_augmentation:  # what LLM'' has learnt
    input:
        writers,
        lambda w: [*tuned("trunk", w.seed), *tuned("with_hints", w.seed)],
    output:
        notebook=f"{RUN}/notebooks/05_prompt_augmentation_s{{seed}}.ipynb",
        picture=picture("tuning_with_hints_s{seed}", "LLM"),
    params:
        "-p seed {seed}",
    threads: CORES
    shell:
        papermill("05_prompt_augmentation")


rule ask:  # an LLM about a backbone's lists or ratings
    input:
        lambda w: backbone(w.name, w.seed, w.fit),
        first,
        lambda w: checkpoint(w.llm, w.seed),
    output:
        f"{RUN}/scores/{{name}}-{{fit}}-{{llm}}-s{{seed}}.parquet",
        f"{RUN}/scores/{{name}}-{{fit}}-{{llm}}-s{{seed}}.json",
    threads: CORES
    shell:
        f"python scripts/ask.py {NAMED} {{wildcards.name}} {{wildcards.fit}} {{wildcards.llm}} {{wildcards.seed}}"


rule validate_llm:  # beside a backbone, on validation lists, before anything is augmented
    input:
        lambda w: backbone(w.name, w.seed, "base"),
        lambda w: tuned(w.checkpoint, w.seed),
    output:
        f"{RUN}/llm/validated-{{checkpoint}}-{{name}}-s{{seed}}.csv",
    threads: CORES
    shell:
        f"python scripts/validate_llm.py {NAMED} {{wildcards.checkpoint}} {{wildcards.name}} {{wildcards.seed}}"


rule second_opinion:  # a baseline's, in place of an LLM's
    input:
        lambda w: backbone(w.name, w.seed, w.fit),
    output:
        f"{RUN}/scores/{{name}}-{{fit}}-{{opinion}}-s{{seed}}.parquet",
        f"{RUN}/scores/{{name}}-{{fit}}-{{opinion}}-s{{seed}}.json",
    wildcard_constraints:
        opinion="|".join(BASELINES),
    threads: 1
    shell:
        f"OMP_NUM_THREADS=1 python scripts/second_opinion.py {NAMED} "
        "{wildcards.name} {wildcards.fit} {wildcards.opinion} {wildcards.seed}"


rule ask_in_another_way:  # the untuned LLM, about validation lists
    input:
        lambda w: backbone(w.name, w.seed, "base"),
        lambda w: [f"{RUN}/llm/prior.parquet"] if needs_prior(PRESET, w.way) else [],
    output:
        f"{RUN}/scores/ways/{{name}}-{{way}}-s{{seed}}.parquet",
        f"{RUN}/scores/ways/{{name}}-{{way}}-s{{seed}}.json",
    threads: CORES
    shell:
        f"python scripts/ask.py {NAMED} {{wildcards.name}} base untuned {{wildcards.seed}} --way {{wildcards.way}}"


rule aggregation:
    input:
        lambda w: opinions(w.name, w.seed),
        lambda w: [backbone(w.name, w.seed, fit) for fit in fits(w.name)],
    output:
        notebook=f"{RUN}/notebooks/06_{{name}}_s{{seed}}.ipynb",
        files=[f"{RUN}/rows/{{name}}-s{{seed}}/{file}" for file in ROW_FILES],
        pictures=[picture(f"{what}_{{name}}_s{{seed}}", "Aggregation") for what in
                  ("within", "alpha", "weights", "history_length")],
    params:
        "-p backbone {name} -p seed {seed}",
    threads: 1
    shell:
        "OMP_NUM_THREADS=1 " + papermill("06_adaptive_aggregation")


rule tables:
    input:
        expand(f"{RUN}/rows/{{name}}-s{{seed}}/{{file}}", **EACH, file=["per_user.parquet", "choice.json"]),
        all_opinions("json", LLMS),
        expand(f"{RUN}/augmentation/{{kind}}-s{{seed}}.json", kind=MADE, seed=PRESET.seeds),
        expand(f"{RUN}/llm/{{llm}}-s{{seed}}/tuning.json", llm=TUNED, seed=PRESET.seeds),
        f"{RUN}/llm/memorization.csv",
    output:
        notebook=f"{RUN}/notebooks/09_tables_and_figures.ipynb",
        record=f"{RUN}/tables/run.json",
        cost=report(f"{RUN}/tables/cost.csv", category="Cost"),
        tables=[report(f"{RUN}/tables/{TASKS[task].table}.csv", category="Tables") for task in
                dict.fromkeys(map(task_of, PRESET.backbones))],
        pairs=report(f"{RUN}/tables/pairs.csv", category="Tables"),
        gains=report(f"{RUN}/tables/gains.csv", category="Tables"),
        forests=[picture(f"forest_{task}", "Tables") for task in dict.fromkeys(map(task_of, PRESET.backbones))],
        pictures=[picture(name, "Tables") for name in ("gains", "gain_and_cost")],
    params:
        "",
    threads: CORES
    shell:
        papermill("09_tables_and_figures") + f" && python scripts/publish.py {NAMED} show"


rule ablations:  # Table 5
    input:
        [f"{RUN}/rows/{name}-s{seed}/{file}" for name in PRESET.ablations for seed in PRESET.seeds
         for file in ("per_user.parquet", "choice.json", "within.csv")],
    output:
        notebook=f"{RUN}/notebooks/07_ablations.ipynb",
        picture=picture("ablations", "Tables"),
    params:
        "",
    threads: 1
    shell:
        papermill("07_ablations")


if PRESET.tuning.taken_from:  # in place of tuning

    rule take_llm:  # as another run has tuned it
        input:
            [f"{ASKED.folder.parent}/{PRESET.tuning.taken_from}/llm/{{llm}}-s{{seed}}/{file}" for file in LLM_FILES],
        output:
            [f"{RUN}/llm/{{llm}}-s{{seed}}/{file}" for file in LLM_FILES],
        wildcard_constraints:
            llm="|".join(TUNED),
        threads: 1
        shell:
            "cp {input:q} $(dirname {output[0]:q})"

    ruleorder: take_llm > tune


if PRESET.published:  # in place of fitting, tuning and asking
    PUBLISHED = [f"{PRESET.published}/s{seed}/record.json" for seed in PRESET.seeds]
    if missing := [file for file in PUBLISHED if not os.path.exists(file)]:
        raise WorkflowError(f"nothing was published for a seed of this preset: {', '.join(missing)} is not there")

    rule unpack:
        input:
            DATA,
            PUBLISHED,
        output:
            [backbone(name, seed, fit) for name in PRESET.backbones for seed in PRESET.seeds for fit in fits(name)],
            all_opinions("parquet"),
            all_opinions("json"),
            expand(f"{RUN}/augmentation/{{kind}}-s{{seed}}.json", kind=MADE, seed=PRESET.seeds),
            expand(f"{RUN}/llm/{{llm}}-s{{seed}}/tuning.json", llm=TUNED, seed=PRESET.seeds),
            f"{RUN}/llm/memorization.csv",
        threads: 1
        shell:
            f"python scripts/replay.py {NAMED} unpack"

    ruleorder: unpack > backbone > second_opinion > ask > data_augmentation > memorization_probe
    ruleorder: unpack > tune


rule base_row:
    input:
        DATA,
    output:
        [f"{RUN}/base/{{variant}}/{{name}}-s{{seed}}.{ending}" for ending in ("parquet", "csv", "json")],
    threads: 1
    shell:
        f"OMP_NUM_THREADS=1 python scripts/base_rows.py {NAMED} {{wildcards.variant}} {{wildcards.name}} {{wildcards.seed}}"


rule base:
    input:
        [f"{RUN}/base/{variant}/{name}-s{seed}.parquet" for variant in ("as-set", OTHER)
         for name in PAPER_BACKBONES for seed in BASE_SEEDS],
        [f"{RUN}/base/as-set/{name}-s0.parquet" for name in BASELINES],
        [f"{RUN}/base/{ties}/{name}-s0.parquet" for ties in ("ties-reverse", "ties-random") for name in PRESET.backbones],
    shell:
        f"python scripts/base_rows.py {NAMED} tables"


rule publish:
    input:
        rules.tables.output,
        rules.ablations.output if PRESET.ablations else [],
    shell:
        f"python scripts/publish.py {NAMED} merge"


rule all:  # every file of the run, so that a deleted one is made again, with what depends on it
    default_target: True
    input:
        rules.data.output,
        [] if PRESET.published else [
            [expand(rules.backbone.output, name=name, seed=PRESET.seeds, fit=fits(name)) for name in PRESET.backbones],
            PRIOR,
            rules.memorization_probe.output,
            expand(rules.take_llm.output, llm=TUNED, seed=PRESET.seeds) if PRESET.tuning.taken_from else
            [expand(rules.backbone.output, name=WRITERS.values(), seed=PRESET.seeds, fit="out_of_fold"),
             expand(rules.tune.output, checkpoint=TUNED, seed=PRESET.seeds),
             expand([*rules.instruction_tuning.output, *rules.prompt_augmentation.output], seed=PRESET.seeds)]
            if TUNED else [],
            expand(rules.data_augmentation.output, kind=MADE, seed=PRESET.seeds),
        ],
        all_opinions("parquet"),
        all_opinions("json"),
        expand(rules.aggregation.output, **EACH),
        rules.tables.output,
        rules.ablations.output if PRESET.ablations else [],
