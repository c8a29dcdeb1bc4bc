"""Who a visitor of a public page is: a signed random cookie, of which only a keyed hash is kept, and an address.

The cookie holds nothing but random bits and a signature, so that a made-up one is told from one that this server gave.
An address is the peer's, or what a trusted proxy says of it (the setting `proxies`).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from peft_core.records import InputError

COOKIE = "ranklab_visitor"
KEY_BYTES, TOKEN_BYTES = 32, 24
MAX_AGE = 30 * 86_400
LONGEST_COOKIE = 200


@dataclass(frozen=True)
class Visitor:
    """id, address: keyed hashes; empty for nobody, who owns nothing. known: a cookie of this server was sent."""

    id: str = ""
    address: str = ""
    known: bool = False


NOBODY = Visitor()
_current: ContextVar[Visitor] = ContextVar("visitor", default=NOBODY)


def current() -> Visitor:
    """Whoever sent the request that is being answered; nobody outside of one."""
    return _current.get()


@contextmanager
def visiting(visitor: Visitor) -> Iterator[None]:
    """Within it `current` is this visitor."""
    token = _current.set(visitor)
    try:
        yield
    finally:
        _current.reset(token)


def key_of(folder: Path) -> bytes:
    """The secret of a folder's hashes and cookies; made where there is none, readable by its owner alone."""
    file = folder / "visitors.key"
    if not file.exists():
        fresh = file.with_name(f"{file.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(secrets.token_bytes(KEY_BYTES))
        fresh.replace(file)
    key = file.read_bytes()
    if len(key) < KEY_BYTES:
        raise InputError("visitors.key", file.name, "it is damaged; remove it to give every visitor a new cookie")
    return key


class Visitors:
    """Gives cookies and reads them. proxies: see `address_of`."""

    def __init__(self, key: bytes, proxies: int | None = 0) -> None:
        self._key, self.proxies = key, proxies

    def issue(self) -> str:
        """The value of a new cookie."""
        token = secrets.token_urlsafe(TOKEN_BYTES)
        return f"{token}.{self._keyed('cookie', token)}"

    def token_of(self, cookie: str) -> str | None:
        """The random part of a cookie that this server gave; None for any other."""
        token, _, signature = cookie.partition(".")
        genuine = self._keyed("cookie", token) if len(cookie) <= LONGEST_COOKIE and cookie.isascii() else ""
        return token if genuine and hmac.compare_digest(signature.encode(), genuine.encode()) else None

    def read(self, cookie: str, peer: str, forwarded: str = "") -> tuple[Visitor, str]:
        """The sender of a request and the cookie's value, a new one where the sent one is none of ours.

        Args:
            peer: the address at the other end of the connection. forwarded: the header X-Forwarded-For.
        """
        token = self.token_of(cookie)
        value = cookie if token is not None else self.issue()
        name = self._keyed("visitor", value.partition(".")[0])
        address = self._keyed("address", address_of(peer, forwarded, self.proxies))
        return Visitor(name, address[:16], token is not None), value

    def _keyed(self, what: str, text: str) -> str:
        return hmac.new(self._key, f"{what}|{text}".encode(), hashlib.sha256).hexdigest()[:40]


def address_of(peer: str, forwarded: str, proxies: int | None) -> str:
    """The address that quotas go by: of IPv6 the /64 network, which is one customer's.

    Args:
        proxies: how many proxies in front add to X-Forwarded-For: what the outermost of them saw counts, and what a
            client wrote itself does not. 0: the header is not read. None, on a Space: the last public address in it.
    """
    said = [part.strip() for part in forwarded[-2000:].split(",") if part.strip()]
    if proxies:
        return _network(said[-proxies] if len(said) >= proxies else peer)
    if proxies is None:
        return _network(next((part for part in reversed(said) if _is_public(part)), peer))
    return _network(peer)


def _is_public(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _network(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text[:100]
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(mapped) if mapped else str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def cookie_header(value: str, *, framed: bool, secure: bool) -> str:
    """The Set-Cookie header.

    Args:
        framed: on a Space, whose page stands in a frame of another site: SameSite=None is sent from there, and
            Partitioned keeps it where browsers block other third-party cookies.
        secure: over https.
    """
    where = "SameSite=None; Secure; Partitioned" if framed else "SameSite=Lax" + ("; Secure" if secure else "")
    return f"{COOKIE}={value}; Path=/; Max-Age={MAX_AGE}; HttpOnly; {where}"
