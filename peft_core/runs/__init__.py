"""Runs: comparisons are stored, queued, trained in the background, watched, stopped and resumed."""

from peft_core.runs.begun import start_of_method, with_starts
from peft_core.runs.errors import (
    DiskFull,
    FolderInUse,
    FolderUnusable,
    QueueFull,
    Refused,
    StoreBusy,
    StoreUnusable,
)
from peft_core.runs.example import example_spec
from peft_core.runs.folders import home
from peft_core.runs.health import Figures, Health
from peft_core.runs.learned import final_ranks, ranks_of_method, stored_view, with_learned_ranks
from peft_core.runs.limits import Limits
from peft_core.runs.listing import ListedRun, RunPage, RunQuery
from peft_core.runs.store import Store
from peft_core.runs.supervisor import Supervisor

__all__ = [
    "DiskFull",
    "Figures",
    "FolderInUse",
    "FolderUnusable",
    "Health",
    "Limits",
    "ListedRun",
    "QueueFull",
    "Refused",
    "RunPage",
    "RunQuery",
    "Store",
    "StoreBusy",
    "StoreUnusable",
    "Supervisor",
    "example_spec",
    "final_ranks",
    "home",
    "ranks_of_method",
    "start_of_method",
    "stored_view",
    "with_learned_ranks",
    "with_starts",
]
