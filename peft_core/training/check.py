"""Everything that can be known to be wrong with a comparison before it starts, without weights and without data."""

from __future__ import annotations

import torch

from peft_core.backbones import check_model, model_info
from peft_core.records import ComparisonSpec, InputError
from peft_core.training.begun import check_one_way
from peft_core.training.data import chosen_tasks, row_counts
from peft_core.training.shape import attach_shape, of_method, shape_of


def check(spec: ComparisonSpec) -> None:
    """Refuses what cannot run. Of a model of the Hub only metadata and config are read.

    Raises:
        InputError: one sentence naming the field, the value and what is allowed.
    """
    model, tasks = model_info(spec.model), chosen_tasks(spec)
    check_model(spec.model)
    for task, task_options in tasks:
        if task.info.modality not in (model.modality, "any"):
            raise InputError("task", task.info.id, f"{spec.model} takes {model.modality} tasks")
        task.check(task_options)
        if task.info.problem == "regression" and not shape_of(spec.model).head_parameters():
            raise InputError("task", task.info.id, f"{spec.model} answers in words, so the task must have classes")
    train_rows = sum(row_counts(spec, task.info)[0] for task, _ in tasks)
    limit, wanted = model.max_length, spec.training.max_length
    if wanted is not None and limit is not None and wanted > limit:
        raise InputError("training.max_length", wanted, f"{spec.model} reads at most {limit} tokens")
    if spec.training.device == "cuda" and not torch.cuda.is_available():
        raise InputError("training.device", "cuda", "there is no CUDA device here; it must be auto or cpu")
    for method in spec.methods:
        attached, config = attach_shape(spec.model, method, spec.seeds[0], len(tasks), tasks[0][0].info.problem)
        check_one_way(method, attached)
        try:
            for hook in attached.on_start:
                hook(spec.training.total_steps(train_rows))
        except InputError as error:
            raise of_method(method, config, error) from None
