"""What the untuned LLM says without any user.

python scripts/untuned_llm.py PRESET prior          llm/prior.parquet: log p of every title without a history
python scripts/untuned_llm.py PRESET memorization   llm/memorization.csv: does it know the item list by heart?
"""

import argparse

import numpy as np

from llama4rec_core.data.prepared import read_prepared
from llama4rec_core.files import write_frame
from llama4rec_core.llm import memorization_probe
from llama4rec_core.llm.examples import CandidateList
from llama4rec_core.llm.of_run import llm_of
from llama4rec_core.rankers import Ranker
from llama4rec_core.run import Run, rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("what", choices=["prior", "memorization"])
    asked = parser.parse_args()
    run = Run.open(asked.preset)
    ready, llm = read_prepared(run.path("data"), run.preset), llm_of(run)
    if asked.what == "memorization":
        items, draws = ready.dataset.items, rng("memorization probe")
        probe = memorization_probe.probe(llm, list(items["item_id"]), list(items["title"]), draws)
        write_frame(run.path("llm/memorization.csv"), probe)
        return
    titles = ready.histories.titles
    ranker = Ranker.of(run.preset, llm, ready.histories, tuned=False, log_p=np.zeros(len(titles)), way="likelihood")
    chunks = np.array_split(np.arange(len(titles)), max(1, len(titles) // 40))
    lists = [CandidateList(f"prior-{chunk[0]:06d}", 0, 0, chunk, ()) for chunk in chunks]  # a prefix of 0: no history
    prompts = [ranker.prompt(each) for each in lists]
    found = ranker.utilities(lists, prompts, run.path("llm/.answers/prior.parquet"), "titles without a history")
    found = found.sort_values("item").assign(title=titles)
    write_frame(run.path("llm/prior.parquet"), found[["item", "title", "log_p"]])


if __name__ == "__main__":
    main()
