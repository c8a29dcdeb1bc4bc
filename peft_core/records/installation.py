"""What the owner of an installation has said of it."""

from __future__ import annotations

import os
import re
from pathlib import Path

UPLOAD = "upload:"
_UPLOADED = re.compile(r"[0-9a-f]+-[0-9a-f]+/[0-9a-f]+/\w[\w.-]*")


def public_mode() -> bool:
    """True where strangers use this installation: ``RANKLAB_PUBLIC=1``, or on a Space unless it is 0 there.

    No local folder is a model then, and the owner's login of the Hub is not used.
    """
    said = os.environ.get("RANKLAB_PUBLIC", "").strip().lower()
    return said in ("1", "true", "yes", "on") if said else bool(os.environ.get("SPACE_ID"))


def upload_path(task: str) -> Path | None:
    """The file of a task that is called ``upload:FOLDER/FOLDER/NAME``, in the folder that RANKLAB_UPLOADS names.

    None for any other task. A public page calls uploaded files so: nothing that is stored or shown holds a path.
    """
    root = os.environ.get("RANKLAB_UPLOADS")
    name = task.removeprefix(UPLOAD)
    if not root or name == task:
        return None
    return Path(root) / name if _UPLOADED.fullmatch(name) else Path(root) / "none"
