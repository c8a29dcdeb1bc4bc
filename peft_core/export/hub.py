"""An exported folder as a repository of the Hub. The token is an argument: used for these calls, kept nowhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from peft_core import __version__
from peft_core.backbones._hub_calls import HubUnavailable, attempted
from peft_core.backbones._hub_ids import hub_id
from peft_core.records import InputError

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


def push_folder(folder: Path, repository: str, token: str, message: str) -> str:
    """Uploads all files of a folder in one commit to a model repository, which is made where there is none.

    Args:
        repository: owner/name.
        token: of the Hub, with the right to write there.
        message: of the commit.

    Returns:
        The repository's address.

    Raises:
        InputError: one sentence for a name, a token or an answer of the Hub with which nothing is pushed.
    """
    check_repository(repository)
    token = check_token(token)
    from huggingface_hub import HfApi, constants

    if constants.is_offline_mode():
        raise InputError(FIELD, repository, "HF_HUB_OFFLINE is set, so the Hub is not asked")
    api = HfApi(token=token, library_name="ranklab", library_version=__version__)
    address = _asked(repository, lambda: api.create_repo(repository, exist_ok=True))
    _asked(repository, lambda: api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))
    return str(address)


def _asked(repository: str, call: Callable[[], T]) -> T:
    def translated() -> T:
        from huggingface_hub.errors import HfHubHTTPError

        try:
            return call()
        except HfHubHTTPError as error:
            sentence = REFUSED.get(error.response.status_code)
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
