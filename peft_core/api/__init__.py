"""The public Python calls, also to be had as `peft_core.load` and so on. All of them work offline with the embedded
models; bad values are an `InputError` of one sentence: the field, the value, what is allowed.

    load       a model with the head of a task; or what was trained: a native folder, a run of the store
    attach     a method on such a model, or on any torch module with linear maps
    train      its steps, with the records that runs report
    evaluate   its scores on the task's evaluation rows
    predict    its answers to texts, pairs, questions, images, a table
    export     a folder: native, Hugging Face PEFT, or a merged model
    compare    several methods and seeds side by side, as a table
"""

from __future__ import annotations

from peft_core.api._compare import Results, compare
from peft_core.api._loading import attach, load
from peft_core.api._model import Model, Tuned
from peft_core.api._own_module import Adapted
from peft_core.api._training import evaluate, train
from peft_core.api._use import export, predict
from peft_core.methods import register
from peft_core.records import InputError
from peft_core.training.problems import Prediction

__all__ = [
    "Adapted",
    "InputError",
    "Model",
    "Prediction",
    "Results",
    "Tuned",
    "attach",
    "compare",
    "evaluate",
    "export",
    "load",
    "predict",
    "register",
    "train",
]
