"""The cost table by hand."""

import pytest

from llama4rec_core.llm import cost
from llama4rec_core.presets import Preset

OF = {"machine": "CPU", "asked": None}


def test_the_cost_table_by_hand():
    """A body of 10 parameters, a head of 4: 2 x 10 x 100 + 2 x 4 x 50 = 2,400 operations in 2 s, of 4,800 possible."""
    costs = {
        "a": {"prompts_sent": 5, "tokens_read": 100, "tokens_written": 0, "logits": 50, "seconds": 2.0} | OF,
        "b": {"prompts_sent": 1, "tokens_read": 30, "tokens_written": 20, "logits": 20, "seconds": 0.0} | OF,
    }
    table = cost.table(costs, {"body": 10, "head": 4}, rate=2400.0, price_read=1.0, price_written=10.0).set_index(
        "what"
    )
    assert table.loc["a", "share_of_machine"] == pytest.approx(0.5)
    assert table.loc["a", "tokens_per_second"] == 50 and table.loc["a", "dollars"] == pytest.approx(100e-6)
    assert table.loc["b", "dollars"] == pytest.approx(230e-6)
    assert table["tokens_per_second"].isna().tolist() == [False, True, False]
    assert table.loc["all", ["prompts", "tokens_read", "tokens_written"]].tolist() == [6, 130, 20]


def test_answers_that_several_files_are_made_of_cost_once():
    one = {"prompts_sent": 5, "tokens_read": 100, "tokens_written": 0, "logits": 50, "seconds": 2.0}
    one |= OF | {"asked": "f00"}
    other = one | {"asked": "ba7", "tokens_read": 7}
    table = cost.table({"a": one, "b": one, "c": other}, {"body": 1, "head": 1}, 1.0, 1.0, 1.0)
    assert table["what"].tolist() == ["a", "c", "all"] and table["tokens_read"].tolist() == [100, 7, 107]


def test_what_two_machines_answered_is_not_added_up():
    one = {"prompts_sent": 5, "tokens_read": 100, "tokens_written": 0, "logits": 0, "seconds": 2.0} | OF
    costs = {"a": one, "b": one | {"machine": "a GPU", "seconds": 0.1}, "c": one}
    table = cost.table(costs, {"body": 1, "head": 1}, 1.0, 1.0, 1.0).query("what == 'all'").set_index("machine")
    assert table["seconds"].to_dict() == {"CPU": 4.0, "a GPU": 0.1} and table["tokens_read"].tolist() == [200, 100]


def test_the_machine_does_more_than_a_million_operations_a_second():
    assert cost.machine_rate(64, seconds=0.02) > 1e6


def test_what_a_row_needs_of_an_llm_by_hand():
    """The data of direct and sequential rows are made by LLM', those of rating rows by the untuned LLM."""
    rows = ["Base", "IFT", "Llama4Rec", "w/o DA", "w/o PA", "random DA", "Base + item-kNN", "Base + biases"]
    preset = Preset(name="x", backbones=["MF", "LightGCN", "DeepFM"], seeds=[0], rows=rows)
    tuned = {"trunk-s0": 100, "without_hints-s0": 10, "with_hints-s0": 20}
    spent = {"pairs-s0": (3, 4), "attributes-s0": (5, 0), "MF-base-untuned-s0": (9999, 0)}
    for name, times in (("MF", 1), ("LightGCN", 3), ("DeepFM", 10)):
        answers = {"base-without_hints": 40, "augmented-with_hints": 50, "base-with_hints": 60}
        answers |= {"augmented-without_hints": 70, "random-with_hints": 80}
        spent |= {f"{name}-{file}-s0": (times * tokens, 0) for file, tokens in answers.items()}
    spent = {name: {"tokens_read": read, "tokens_written": written} for name, (read, written) in spent.items()}
    found = cost.of_rows(preset, spent, tuned).set_index(["task", "row"])
    assert found.columns.tolist() == ["tuned", "made", "asked", "read"]
    assert found.loc["direct"].T.to_dict("list") == {
        "Base": [0, 0, 0, 0],
        "IFT": [110, 0, 80, 3 * 110 + 80],
        "Llama4Rec": [130, 7, 100, 3 * 130 + 107],
        "w/o DA": [120, 0, 120, 3 * 120 + 120],
        "w/o PA": [110, 7, 140, 3 * 110 + 147],
        "random DA": [120, 0, 160, 3 * 120 + 160],
        "Base + item-kNN": [0, 0, 0, 0],
    }
    assert found.loc[("rating", "Llama4Rec")].tolist() == [120, 5, 500, 3 * 120 + 505]
    assert found.loc[("rating", "Base + biases")].tolist() == [0, 0, 0, 0]


@pytest.mark.llm
def test_the_size_of_smollm2(llm):
    """30 layers of 3,540,096 parameters and a last norm of 576; 49,152 words of 576."""
    assert cost.size(llm) == {"body": 30 * 3_540_096 + 576, "head": 49_152 * 576}
