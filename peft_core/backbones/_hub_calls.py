"""Calls to the Hub: a bounded number of attempts, and one sentence for every way in which they fail."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from peft_core.records import InputError

T = TypeVar("T")
ATTEMPTS = 4
HURRIED_ATTEMPTS = 2
PAUSE = 0.5
"""Seconds before the second attempt; doubled before each further one."""
MAX_PAUSE = 20.0
"""Longest pause in seconds, also where the Hub asks for a longer one."""
TIMEOUT = 6.0
"""Seconds that one answer on metadata may take."""
BUSY = (408, 429, 500, 502, 503, 504)


class HubUnavailable(Exception):
    """The Hub gave no answer in all attempts. Its text is half a sentence on what happened."""


class _Busy(Exception):
    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.wait = float(retry_after) if retry_after.isdigit() else None


@dataclass(frozen=True)
class _Trouble:
    """What went wrong. passing: another attempt may help; wait: after so many seconds, where the Hub says so."""

    sentence: str
    passing: bool = False
    wait: float | None = None


def attempted(
    model_id: str, call: Callable[[], T], attempts: int | None = None, said: Callable[[str], None] | None = None
) -> T:
    """What a call to the Hub gives, tried again after a pause where the Hub is slow, busy or breaks off.

    Args:
        attempts: how many; None: as many as somebody waits for who has nothing else to do. Fewer have short pauses.
        said: hears of every pause.

    Raises:
        InputError: the Hub's answer is final. HubUnavailable: it gave none in all attempts. OSError: the disk is full.
    """
    longest = MAX_PAUSE if attempts is None else PAUSE
    attempts = attempts or ATTEMPTS
    for attempt in range(1, attempts + 1):
        try:
            with _impatient():
                return call()
        except InputError:
            raise
        except Exception as error:  # noqa: BLE001 - the clients raise errors of four libraries; each becomes a sentence
            trouble = _explained(error)
            if not trouble.passing:
                raise InputError("model", model_id, trouble.sentence) from None
            if attempt == attempts:
                raise HubUnavailable(trouble.sentence) from None
            pause = min(trouble.wait if trouble.wait is not None else PAUSE * 2 ** (attempt - 1), longest)
            if said is not None:
                said(f"{trouble.sentence}; attempt {attempt + 1} of {attempts} follows in {pause:g} s")
            time.sleep(pause)
    raise AssertionError


_ours: ContextVar[bool] = ContextVar("_ours", default=False)


@contextmanager
def _impatient() -> Iterator[None]:
    """Busy answers are raised at once: the client itself would sleep for as long as the Hub says, however long."""
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["response"]
    if _raise_when_busy not in hooks:
        hooks.append(_raise_when_busy)
    before = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(before)


def _raise_when_busy(response: Any) -> None:
    if _ours.get() and response.status_code in BUSY:
        raise _Busy(response.status_code, response.headers.get("Retry-After", ""))


def _explained(error: Exception) -> _Trouble:
    """What an exception of a call means.

    Raises:
        OSError: the disk is full, which is no matter of the Hub.
    """
    import httpx2
    from huggingface_hub import errors

    causes = _causes(error)
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            raise cause
        if isinstance(cause, _Busy):
            return _Trouble(f"the Hub is too busy to answer (status {cause.status})", True, cause.wait)
        if isinstance(cause, errors.GatedRepoError):
            return _Trouble(
                "it is gated: accept its terms on its page of the Hub and log in with `hf auth login` (a token in an "
                "environment variable does not reach the process that trains)"
            )
        if isinstance(cause, errors.DisabledRepoError):
            return _Trouble("the Hub has disabled it")
        if isinstance(cause, errors.RevisionNotFoundError):
            return _Trouble("the Hub has the model, but no such revision of it")
        if isinstance(cause, errors.RepositoryNotFoundError):
            return _missing()
        if isinstance(cause, errors.RemoteEntryNotFoundError):
            return _Trouble("a file that the Hub lists is missing there")
        if isinstance(cause, errors.HfHubHTTPError):
            return _by_status(cause.response.status_code)
        if isinstance(cause, httpx2.TimeoutException):
            return _Trouble("the Hub does not answer in time", True)
        if isinstance(cause, httpx2.ConnectError):
            return _Trouble("the Hub cannot be reached", True)
        if isinstance(cause, httpx2.TransportError) or "onsistency check failed" in str(cause):
            return _Trouble("the transfer from the Hub breaks off", True)
    first = str(error).strip().splitlines()
    return _Trouble(f"the Hub's answer cannot be used ({type(error).__name__}: {first[0][:200] if first else ''})")


def _missing() -> _Trouble:
    return _Trouble("the Hub has no such model, or it is private (then log in with `hf auth login`)")


def _by_status(status: int) -> _Trouble:
    if status == 401:
        return _Trouble("the Hub asks for a login or does not accept the stored one; log in with `hf auth login`")
    if status == 403:
        return _Trouble("the Hub refuses access to it (status 403)")
    if status == 404:
        return _missing()
    return _Trouble(f"the Hub refuses the request (status {status})")


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
