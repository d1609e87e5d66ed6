"""The whole catalogue by an LLM: the target's place among all items that the user has not had."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
from standins import script

from llama4rec_core.evaluation import ndcg


class History:
    def history(self, user, prefix, length):
        return np.array([3, 4])[:prefix]


def test_items_of_the_history_and_the_order_of_others():
    log_p = np.log([0.1, 0.3, 0.2, 0.35, 0.05])
    rank = script("catalogue")._rank
    place = [rank(log_p, SimpleNamespace(user=0, prefix=2, item=item), History()) for item in (1, 2, 0)]
    assert place == [1, 2, 3]  # item 3, the likeliest, was had before
    assert rank(log_p, SimpleNamespace(user=0, prefix=0, item=1), History()) == 2  # without a history it counts


def test_a_tie_does_not_count_for_the_target():
    log_p = np.log([0.3, 0.3, 0.3, 0.1, 0.0 + 1e-9])
    assert script("catalogue")._rank(log_p, SimpleNamespace(user=0, prefix=2, item=1), History()) == 3


def test_every_user_weighs_the_same():
    known = pd.DataFrame({"user": [0, 0, 0, 1]})
    row = script("catalogue").of_ranks("LLM", known, [1, 1, 1, 9])
    assert row["value"] == ndcg([1], 5)[0] / 2 and row["users"] == 2
