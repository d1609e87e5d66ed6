"""A preset is checked when it is loaded, and all that is wrong is said at once."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from llama4rec_core import paths, presets
from llama4rec_core.backbones import BACKBONES, task_of
from llama4rec_core.backbones.fit import settings_of
from llama4rec_core.variants import VARIANTS


@pytest.mark.parametrize("name", [path.stem for path in paths.presets().glob("*.yaml")])
def test_every_shipped_preset_loads_and_names_known_backbones(name):
    preset = presets.load(name)
    assert preset.name == {"all-rows": "quick"}.get(name, name)
    assert set(preset.backbones) <= set(BACKBONES)
    for task, backbone in presets.as_dict(preset)["out_of_fold"].items():
        assert task_of(backbone) == task
    for backbone, overrides in preset.backbone_settings.items():
        settings_of(backbone, overrides)  # raises on an unknown setting


def test_all_rows_goes_on_in_the_run_of_quick():
    few, every = (presets.load(name) for name in ("quick", "all-rows"))
    assert all(set(every.rows_of(name)) == set(VARIANTS) for name in every.backbones)
    assert replace(few, ablations=every.ablations) == every


def test_a_published_preset_has_the_settings_of_the_run_that_was_published():
    run, again = (presets.load(name) for name in ("ml-1m", "published-ml-1m"))
    assert replace(again, name=run.name, published=None) == run


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: 3", "mine.yaml has an unknown key 'tokens': the known ones are name, data"),
        ("data: {nmae: ml-1m}", "mine.yaml, data has an unknown key 'nmae': the known ones are name, called, folder"),
        (
            "instructions: {shares: {ranking: 1}}",
            "instructions.shares has an unknown key 'ranking': the known ones are direct",
        ),
        (
            "tuning: {rank: 3}",
            "mine.yaml, tuning has an unknown key 'rank': the known ones are method, taken_from, layers",
        ),
        ("tuning: {method: lm_head}", "mine.yaml, tuning.method must be 'full', 'lora' or 'none', not 'lm_head'"),
        (
            "tuning: {learning_rate: 1e-3}",
            "mine.yaml, tuning.learning_rate must be a number, not '1e-3' (YAML reads 1e-3 as text: write 0.001)",
        ),
        ("instructions: {window: 8}", "mine.yaml, instructions.window must be less than or equal to 1, not 8"),
        (
            "instructions: {trunk: {hints: 1}}",
            "mine.yaml, instructions.trunk has an unknown key 'hints': the known ones are tokens, history, rated",
        ),
        ("seeds: 3", "mine.yaml, seeds"),
        ("prompts: {history: yes}", "mine.yaml, prompts.history must be an integer, not True"),
        ("ranking: {mode: best}", "mine.yaml, ranking.mode must be 'likelihood', 'pointwise', 'yes_no', 'letters'"),
        ("aggregation: {rating: mean}", "mine.yaml, aggregation.rating must be 'expected' or 'likeliest', not 'mean'"),
        ("data: {name: ml-10m}", "mine.yaml, data.name must be 'ml-100k', 'ml-1m', 'bookcrossing' or 'own'"),
        ("backbones: [LightGNC]", "unknown backbone 'LightGNC': the known ones are"),
        ("out_of_fold: {direct: SASRec}", "out_of_fold.direct is SASRec, a backbone for the sequential task"),
        ("ranking: {mode: letters}\nprompts: {candidates: 27}", "27 candidates are more than there are letters"),
        ("ranking: {mode: letters}\naugmentation: {sampled: 30}", "30 candidates are more than there are letters"),
        ("backbones: [LightGCN, EASE, Bias]", "EASE, Bias: no backbones, but second opinions beside each"),
        ("data: {name: own}", "data.name is 'own', so data.interactions and data.items must name your two files"),
        ("data: [1", "mine.yaml is no valid YAML"),
        ("- 1", "mine.yaml must hold keys and values, not [1]"),
    ],
)
def test_a_wrong_preset_says_where_and_what_would_be_right(tmp_path, text, said):
    with pytest.raises(ValueError) as error:
        presets.load(written(tmp_path, text))
    assert said in str(error.value)


def test_all_that_is_wrong_is_said_at_once(tmp_path):
    with pytest.raises(ValueError) as error:
        presets.load(written(tmp_path, "llm: 3\ntuning: {methd: lora, warmup: -1}\nranking: {mode: best}"))
    lines = str(error.value).splitlines()
    assert len(lines) == 4 and all(line.startswith("mine.yaml") for line in lines)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        FileNotFoundError,
        match="there is no preset 'fast': the known ones are .*, published-ml-1m, published-seeds, quick, smoke",
    ):
        presets.load("fast")


def test_numbers_and_none_keep_their_types(tmp_path):
    preset = presets.load(written(tmp_path, "data: {users: null}\ntuning: {layers: 1, temperature: 2}\nseeds: [4, 5]"))
    assert preset.data.users is None and preset.tuning.temperature == 2.0 and preset.seeds == (4, 5)
    assert isinstance(preset.tuning.layers, int) and isinstance(preset.tuning.temperature, float)


def test_the_prior_is_the_untuned_llm_s_and_of_likelihoods_alone(tmp_path):
    preset = presets.load(written(tmp_path, "ranking: {prior_weight: 0.3}"))
    assert presets.needs_prior(preset) and not presets.needs_prior(preset, "letters")
    assert not presets.needs_prior(presets.load(written(tmp_path, "ranking: {prior_weight: 0}")))
    letters = presets.load(written(tmp_path, "ranking: {mode: letters}"))
    assert not presets.needs_prior(letters) and presets.needs_prior(letters, "likelihood")


def test_content_goes_out_and_comes_back():
    preset = presets.load("smoke")
    assert presets.build(presets.as_dict(preset)) == preset


def test_the_schema_for_editors_is_the_presets():
    """Written anew with: python -c 'from llama4rec_core import presets; presets.write_schema()'"""
    committed = json.loads((paths.presets() / "schema.json").read_text(encoding="utf-8"))
    assert committed == presets.schema()
    assert all(each["properties"] for each in committed["$defs"].values())
    described = [field for each in committed["$defs"].values() for field in each["properties"].values()]
    assert all("description" in field for field in described)


def test_presets_and_runs_are_there_without_torch():
    """Snakemake reads them at every start."""
    code = "import sys, llama4rec_core.run, llama4rec_core.tasks; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0
