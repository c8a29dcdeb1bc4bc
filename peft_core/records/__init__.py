"""The plain data that every room shares: specifications, events, states, and what a backbone offers.

Only pydantic and the standard library: importing this room loads no torch. Everything is frozen; what comes from
outside is checked when it is made, and a bad value becomes an `InputError` of one sentence (`checked`).
"""

from peft_core.records.backbone import (
    AdapterDefaults,
    AdapterPlace,
    Backbone,
    PrefixPlace,
    Problem,
    PromptPlace,
    Role,
    Site,
    SiteSelection,
)
from peft_core.records.events import (
    ComparisonRow,
    Emit,
    EvalRecord,
    Event,
    LayerRank,
    RankOf,
    RankRecord,
    Record,
    RunResult,
    RunRow,
    RunState,
    StateRecord,
    StepRecord,
    View,
)
from peft_core.records.inputs import Frozen, InputError, RunFailure, checked, describe_fields
from peft_core.records.installation import public_mode
from peft_core.records.plan import FEW_STEPS, Offer, Plan
from peft_core.records.quoted import QuotedFigure
from peft_core.records.specs import (
    LOCKS,
    MAX_SEED,
    BudgetLock,
    ComparisonSpec,
    MethodSpec,
    RunSpec,
    Seed,
    TrainingConfig,
    parse_scalar,
    parse_task_option,
    run_specs,
)
from peft_core.records.sweep import Absence, SweepMethod, SweepSpec, SweepTask, Trial

__all__ = [
    "FEW_STEPS",
    "LOCKS",
    "MAX_SEED",
    "Absence",
    "AdapterDefaults",
    "AdapterPlace",
    "Backbone",
    "BudgetLock",
    "ComparisonRow",
    "ComparisonSpec",
    "Emit",
    "EvalRecord",
    "Event",
    "Frozen",
    "InputError",
    "LayerRank",
    "MethodSpec",
    "Offer",
    "Plan",
    "PrefixPlace",
    "Problem",
    "PromptPlace",
    "QuotedFigure",
    "RankOf",
    "RankRecord",
    "Record",
    "Role",
    "RunFailure",
    "RunResult",
    "RunRow",
    "RunSpec",
    "RunState",
    "Seed",
    "Site",
    "SiteSelection",
    "StateRecord",
    "StepRecord",
    "SweepMethod",
    "SweepSpec",
    "SweepTask",
    "TrainingConfig",
    "Trial",
    "View",
    "checked",
    "describe_fields",
    "parse_scalar",
    "parse_task_option",
    "public_mode",
    "run_specs",
]
