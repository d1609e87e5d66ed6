"""The paper's three tasks: what they are measured by, and where their rows stand."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A task of the paper: what weights are chosen by, and where its rows stand."""

    name: str
    metric: str  # NDCG@5 or RMSE
    column: str  # NDCG@5 or MSE: the root comes after averaging
    sign: int  # 1 where more is better, -1 where less is
    table: str  # the file of its rows
    number: int  # of the paper's table
    made: str  # what the LLM makes for its backbones (4.2)

    @property
    def what(self) -> str:
        return "rating prediction" if self.root else f"{self.name} recommendation"

    @property
    def root(self) -> bool:
        """Whether the metric is the root of the mean over users."""
        return self.column == "MSE"


TASKS = {
    task.name: task
    for task in (
        Task("direct", "NDCG@5", "NDCG@5", 1, "table_2_direct", 2, "pairs"),
        Task("sequential", "NDCG@5", "NDCG@5", 1, "table_3_sequential", 3, "insertions"),
        Task("rating", "RMSE", "MSE", -1, "table_4_rating", 4, "attributes"),
    )
}

MAKERS = {"augmented": "", "random": "-random", "popular": "-popular"}  # by fit: the LLM, and two controls without one


def additions(task: str, fit: str, seed: int | str) -> list[str]:
    """The file of a run that a fit adds to its data: what the LLM made, or a control of it. Other fits add none."""
    return [f"augmentation/{TASKS[task].made}{MAKERS[fit]}-s{seed}.csv"] if fit in MAKERS else []
