"""What the owner of an installation has said of it."""

from __future__ import annotations

import os


def public_mode() -> bool:
    """True where strangers use this installation (``RANKLAB_PUBLIC=1``).

    No local folder is a model then, and the owner's login of the Hub is not used.
    """
    return os.environ.get("RANKLAB_PUBLIC", "").strip().lower() in ("1", "true", "yes", "on")
