"""Who may log in to the page: `RANKLAB_AUTH=user:password,user:password`, or a file with such a line for each."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from peft_core.records import InputError

HIDDEN = "(not shown)"


class Accounts:
    """For Gradio's `auth`: whether a name and a password belong together, in a time that tells of neither."""

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        self._known = [(_digest(name), _digest(password)) for name, password in pairs]

    def __call__(self, name: str, password: str) -> bool:
        given, found = (_digest(name), _digest(password)), False
        for known in self._known:
            same = [hmac.compare_digest(one, other) for one, other in zip(given, known, strict=True)]
            found |= all(same)
        return found


def accounts_of(auth: str | None, file: str | None) -> Accounts | None:
    """The accounts of the settings `auth` and `auth_file`; None where neither is set.

    Raises:
        InputError: an entry that is none, or a file that cannot be read. It shows no password.
    """
    pairs = [_pair("auth", text) for text in (auth or "").split(",") if text.strip()]
    if file:
        try:
            lines = Path(file).expanduser().read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):
            raise InputError("auth_file", file, "it must be a readable file of lines user:password") from None
        pairs += [_pair("auth_file", line) for line in lines if line.strip() and not line.startswith("#")]
    if (auth or file) and not pairs:
        raise InputError("auth_file" if file else "auth", file or HIDDEN, "it must have an entry user:password")
    return Accounts(pairs) if pairs else None


def _pair(where: str, text: str) -> tuple[str, str]:
    name, _, password = text.strip().partition(":")
    if not name or not password:
        raise InputError(where, HIDDEN, "every entry must be user:password, neither of them empty")
    return name, password


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
