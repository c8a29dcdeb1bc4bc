"""An exported folder as a repository of the Hub. The token is an argument: used for these calls, kept nowhere."""

from __future__ import annotations

import hmac
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeVar

from peft_core import __version__
from peft_core.backbones._hub_calls import HubUnavailable, attempted
from peft_core.backbones._hub_ids import hub_id
from peft_core.export.card import Format
from peft_core.export.finished import FinishedRun
from peft_core.export.writing import export_run
from peft_core.records import InputError, public_mode

T = TypeVar("T")
FIELD = "push_to_hub"
_TOKEN = re.compile(r"[\x21-\x7e]{8,500}")


def check_repository(repository: str) -> None:
    """Refuses what is no owner/name: InputError."""
    try:
        good = hub_id(repository).repository == repository and "/" in repository
    except InputError:
        good = False
    if not good:
        raise InputError(FIELD, repository, "it must be written owner/name")


def check_token(token: str) -> str:
    """The token without space around it. Its text is never in a message.

    Raises:
        InputError: it cannot be one.
    """
    if not _TOKEN.fullmatch(token.strip()):
        raise InputError("token", "not shown", "it must be a token of the Hub that may write, such as hf_ and letters")
    return token.strip()


def check_own_login(repository: str, token: str | None) -> str:
    """The token of whoever asks for a push; on a public installation never the login of its owner.

    Args:
        token: what the visitor's own login gave (on a Space, OAuth), or was typed.

    Raises:
        InputError: there is none, it cannot be one, or a stranger would push with the owner's.
    """
    if token is None or not token.strip():
        raise InputError(FIELD, repository, "log in with an account of your own first; no other login is used")
    token = check_token(token)
    if public_mode() and any(hmac.compare_digest(token, known) for known in _logins_of_the_owner()):
        raise InputError(FIELD, repository, "on a public installation only a visitor's own login may push")
    return token


def own_login(repository: str) -> str:
    """The token that this machine has, from its environment or its stored login.

    Raises:
        InputError: it has none, or strangers use this installation.
    """
    from huggingface_hub import get_token

    token = None if public_mode() else get_token()
    if not token:
        raise InputError(FIELD, repository, "no token is given, and this machine has no login of the Hub to use")
    return check_token(token)


def _logins_of_the_owner() -> list[str]:
    """What the environment and the stored login of this installation hold."""
    from huggingface_hub import constants, get_token

    try:
        stored = Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8", errors="ignore").strip()
    except OSError:
        stored = ""
    return [(get_token() or "").strip(), stored]


def push_run(
    finished: FinishedRun,
    kind: Format,
    repository: str,
    token: str | None,
    task: str | None = None,
    model: str | None = None,
    *,
    new: bool = False,
) -> str:
    """Exports a finished run and pushes it, for a page: nothing is left on this disk.

    Args:
        token: of the visitor, passed on and kept nowhere.
        task, model: as in `export_run`. new: as in `push_folder`.

    Returns:
        The repository's address.

    Raises:
        InputError: no login of the visitor's own, a format that the method does not have, or a refusal of the Hub.
    """
    check_repository(repository)
    token = check_own_login(repository, token)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "exported"
        export_run(finished, kind, folder, task, model)
        return push_folder(folder, repository, token, message_of(finished, kind), new=new)


def message_of(finished: FinishedRun, kind: Format) -> str:
    """What a commit with the exported run says."""
    return f"Add {finished.row.label} ({kind})"


def push_folder(folder: Path, repository: str, token: str, message: str, *, new: bool = False) -> str:
    """Uploads all files of a folder in one commit to a model repository, which is made where there is none.

    Args:
        repository: owner/name.
        token: of the Hub, with the right to write there.
        message: of the commit.
        new: refuse a repository that is there already.

    Returns:
        The repository's address.

    Raises:
        InputError: one sentence for a name, a token or an answer of the Hub with which nothing is pushed.
    """
    check_repository(repository)
    token = check_own_login(repository, token)
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        raise InputError(FIELD, repository, "HF_HUB_OFFLINE is set, so the Hub is not asked")
    api = HfApi(token=token, library_name="ranklab", library_version=__version__)
    taken = {409: "there is a repository of this name already"} if new else {}
    address = _asked(repository, lambda: api.create_repo(repository, exist_ok=not new), taken)
    _asked(repository, lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))
    return str(address)


def _asked(repository: str, call: Callable[[], T], also: Mapping[int, str] = MappingProxyType({})) -> T:
    def translated() -> T:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return call()
        except HfHubHTTPError as error:
            sentence = {**REFUSED, **also}.get(error.response.status_code)
            if sentence is None:
                raise
            raise InputError(FIELD, repository, sentence) from None

    try:
        return attempted(repository, translated)
    except InputError as error:
        raise InputError(FIELD, repository, error.allowed) from None
    except HubUnavailable as error:
        raise InputError(FIELD, repository, f"{error}; nothing more was tried") from None


REFUSED = {
    400: "the Hub does not take the files as they are (status 400)",
    401: "the Hub does not accept the token",
    403: "the token may not write there",
    404: "the Hub has no such place, or the token may not see it",
    409: "something else was written there at the same moment; push again",
}
