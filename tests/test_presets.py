import pytest

from llama4rec_core import paths, presets
from llama4rec_core.backbones import BACKBONES, settings_of
from llama4rec_core.files import read_json, write_json
from llama4rec_core.stages import Run


@pytest.mark.parametrize("name", [path.stem for path in paths.presets().glob("*.yaml")])
def test_every_shipped_preset_loads_and_names_known_backbones(name):
    preset = presets.load(name)
    assert preset.name == name
    assert set(preset.backbones) <= set(BACKBONES)
    for backbone, task in ((b, t) for t, b in preset.hint_backbones.items()):
        assert BACKBONES[backbone].task == task
    for backbone, overrides in preset.backbone_settings.items():
        settings_of(backbone, overrides)  # raises on an unknown setting


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tokens: 3", "mine.yaml has an unknown key 'tokens': the known ones are name, data"),
        ("data: {nmae: ml-1m}", "mine.yaml, data has an unknown key 'nmae': the known ones are name, folder"),
        ("tuning: {learning_rate: 1e-3}", "mine.yaml, tuning, learning_rate must be float, not '1e-3'"),
        ("seeds: 3", "mine.yaml, seeds must be a list, not 3"),
        ("prompts: {history: yes}", "mine.yaml, prompts, history must be int, not True"),
        ("data: [1", "mine.yaml is no valid YAML"),
        ("- 1", "mine.yaml must hold keys and values, not [1]"),
    ],
)
def test_a_wrong_preset_says_where_and_what_would_be_right(tmp_path, text, said):
    with pytest.raises(ValueError) as error:
        presets.load(written(tmp_path, text))
    assert said in str(error.value)


def test_an_unknown_preset_lists_the_known_ones():
    with pytest.raises(
        FileNotFoundError, match="there is no preset 'fast': the known ones are laptop, paper, quick, smoke"
    ):
        presets.load("fast")


def test_numbers_and_none_keep_their_types(tmp_path):
    preset = presets.load(written(tmp_path, "data: {users: null}\ntuning: {layers: 1}\nseeds: [4, 5]"))
    assert preset.data.users is None and preset.tuning.layers == 1.0 and preset.seeds == (4, 5)


def test_a_run_folder_refuses_other_settings_but_takes_more_seeds(results, tmp_path):
    Run.open(written(tmp_path, "seeds: [0]"))
    Run.open(written(tmp_path, "seeds: [0, 1]"))
    with pytest.raises(ValueError, match="instructions.tokens = 600000, the preset now says 5"):
        Run.open(written(tmp_path, "instructions: {tokens: 5}"))


def test_a_run_folder_of_before_a_setting_says_so(results, tmp_path):
    record = Run.open(written(tmp_path, "seeds: [0]")).folder / "preset.json"
    content = read_json(record)
    del content["ranking"]["further_tokens"]
    write_json(record, content)
    with pytest.raises(ValueError, match="before there was a setting ranking.further_tokens, the preset now says 0"):
        Run.open(written(tmp_path, "seeds: [0]"))
