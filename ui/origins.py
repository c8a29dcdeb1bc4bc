"""Which pages and names a request may come by: pages of other sites, and names that only lead to this machine.

A page of another site can also reach a server of one's own machine under that site's own name, once the name leads here
(DNS rebinding): to a browser it is then the same site, and only the `Host` that it sends tells.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from peft_core.records import InputError


def origins_of(text: str | None) -> frozenset[str]:
    """The origins in a text with commas between, in small letters.

    Raises:
        InputError: one that is no origin.
    """
    found = [part.strip().rstrip("/").lower() for part in (text or "").split(",") if part.strip()]
    for origin in found:
        if not _is_origin(origin):
            raise InputError("origins", origin, "it must be like https://example.org")
    return frozenset(found)


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        known = parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    plain = text == f"{parts.scheme}://{parts.netloc}" and not set("@;'\" \t") & set(parts.netloc)
    return bool(known) and plain and parts.scheme in ("http", "https")


def names_of(host: str, origins: frozenset[str]) -> frozenset[str]:
    """The names that a page of one's own answers to, beside this machine's address: see `is_known`.

    Args:
        host: what the server listens on.
    """
    named = [host, socket.gethostname(), *(urlsplit(origin).hostname or "" for origin in origins)]
    names = {name.lower().rstrip(".") for name in named}
    return frozenset(names | {f"{socket.gethostname().lower()}.local"})


def is_known(host: str | None, names: frozenset[str]) -> bool:
    """Whether a request's Host is an address, `localhost` or one of `names`. Programs that send none are let in.

    An address is in nobody's hand; any other name can be made to lead here by whoever owns it.
    """
    if host is None:
        return True
    try:
        name = (urlsplit(f"//{host}").hostname or "").rstrip(".")
    except ValueError:
        return False
    return name in names or name == "localhost" or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign(method: str, headers: Mapping[str, str], origins: frozenset[str] = frozenset()) -> bool:
    """Whether a page of another site sent a request, by what browsers say. Programs say nothing and are none.

    Following a link, and being shown in a frame, is no such request.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if origin in origins or (method in ("GET", "HEAD") and headers.get("sec-fetch-mode") == "navigate"):
        return False
    if site is not None:
        return site not in ("same-origin", "none")
    return origin is not None and urlsplit(origin).netloc != headers.get("host")
