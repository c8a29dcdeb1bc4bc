"""Training: a comparison's runs, checked, trained, saved, resumed."""

from peft_core.training.check import check
from peft_core.training.cohort import train_comparison
from peft_core.training.loop import Run, train

__all__ = ["Run", "check", "train", "train_comparison", "warm"]


def warm() -> None:
    """Imports ahead what the first comparison needs, so that a waiting worker shows its first point at once."""
    from peft_core.backbones import list_models, load_backbone
    from peft_core.methods import list_methods
    from peft_core.metrics import scores  # noqa: F401
    from peft_core.tasks import list_tasks

    list_methods()
    list_tasks()
    for model in list_models():
        if model.origin == "embedded":
            load_backbone(model.id, outputs=2, problem="classification", labels=("no", "yes"))
    import scipy.stats  # noqa: F401
    import sklearn.metrics  # noqa: F401
