"""How much a visitor of a public page may ask for: rates by token buckets, and counts of what goes on at once."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from peft_core.runs import Refused
from ui.public_limits import PublicLimits
from ui.visitors import Visitor

Kind = Literal["read", "act", "start", "login"]
MOST_BUCKETS = 20_000
LONGEST_WAIT = 60.0


@dataclass
class Bucket:
    """Tokens that come back at `rate` a second up to `burst`. `at`: when `tokens` was true."""

    rate: float
    burst: float
    tokens: float
    at: float

    def missing(self, now: float) -> float:
        """Seconds until there is a token; 0 where there is one."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.rate)
        self.at = now
        return 0.0 if self.tokens >= 1 else (1 - self.tokens) / self.rate


class Rates:
    """Buckets for every visitor, every address, and all together. All methods may be called from any thread."""

    def __init__(self, limits: PublicLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._shares = (1.0, limits.address, limits.total)
        long = limits.burst_seconds
        self._of: dict[Kind, tuple[float, float]] = {
            "read": (limits.reads_per_second, limits.reads_per_second * long),
            "act": (limits.acts_per_second, limits.acts_per_second * long),
            "start": (limits.starts_per_minute / 60, limits.starts_per_minute),
            "login": (limits.logins_per_minute / 60, limits.logins_per_minute),
        }
        self._buckets: OrderedDict[tuple[Kind, str], Bucket] = OrderedDict()

    def take(self, kind: Kind, visitor: Visitor) -> float:
        """Count a request; 0, or the seconds to wait, and then nothing is counted."""
        rate, burst = self._of[kind]
        own, address, total = self._shares if kind != "login" else (1.0, 1.0, self._shares[2])
        names = [("a" + visitor.address, address), ("", total)]
        if visitor.known:  # who sends no cookie is a new visitor each time, and counts by address alone
            names.insert(0, ("v" + visitor.id, own))
        now = self._clock()
        with self._lock:
            buckets = [self._bucket((kind, name), rate * share, max(1.0, burst * share), now) for name, share in names]
            wait = max(bucket.missing(now) for bucket in buckets)
            if wait <= 0:
                for bucket in buckets:
                    bucket.tokens -= 1
        return min(wait, LONGEST_WAIT)

    def _bucket(self, name: tuple[Kind, str], rate: float, burst: float, now: float) -> Bucket:
        if name not in self._buckets:
            self._buckets[name] = Bucket(rate, burst, burst, now)
            while len(self._buckets) > MOST_BUCKETS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(name)
        return self._buckets[name]


class Tally:
    """Counts what visitors and addresses have under way. All methods may be called from any thread."""

    def __init__(self, visitor: float, address: float, total: float, sentence: str) -> None:
        self._most, self._sentence = (visitor, address, total), sentence
        self._lock, self._counts = threading.Lock(), Counter[str]()

    def enter(self, visitor: Visitor) -> None:
        """Raises `Refused` with the sentence where it would be too many."""
        names = _names(visitor)
        with self._lock:
            if any(self._counts[name] >= most for name, most in zip(names, self._most, strict=True)):
                raise Refused(self._sentence)
            self._counts.update(names)

    def leave(self, visitor: Visitor) -> None:
        """What was entered has ended."""
        with self._lock:
            self._counts.subtract(_names(visitor))
            self._counts = +self._counts

    @contextmanager
    def at(self, visitor: Visitor) -> Iterator[None]:
        """Within it one more is under way."""
        self.enter(visitor)
        try:
            yield
        finally:
            self.leave(visitor)


def _names(visitor: Visitor) -> list[str]:
    return ["v" + visitor.id, "a" + visitor.address, "all"]


def whole_seconds(wait: float) -> int:
    """For Retry-After."""
    return max(1, math.ceil(wait))


def wait_sentence(wait: float) -> str:
    seconds = whole_seconds(wait)
    return f"Too many requests came from here; try again in {seconds} second{'s' if seconds != 1 else ''}."
