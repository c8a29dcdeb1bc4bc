"""Taking a trained adapter away: as a PEFT folder, merged into its backbone, or in the project's own small format.

The public call `peft_core.export(...)` has the name of this room, so the room can be called: as `peft_core.api.export`.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> Any:
        return import_module("peft_core.api").export(*given, **named)


sys.modules[__name__].__class__ = _Room
