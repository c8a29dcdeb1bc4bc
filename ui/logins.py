"""Whose login of the Hub a push from the page uses: a typed token, or on a public page the visitor's own sign-in.

On a Space with `hf_oauth` Gradio keeps the sign-in in a signed cookie of the visitor's, as `session["oauth_info"]`.
"""

from __future__ import annotations

import importlib.util
import os
import time
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from starlette.requests import Request

from peft_core.records import public_mode
from peft_core.runs import Refused

OAUTH = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
"""What a Space with `hf_oauth: true` has in its environment."""
LIBRARIES = ("authlib", "itsdangerous")
"""What Gradio needs for it."""


@dataclass(frozen=True)
class Login:
    """How the sender of a request may push.

    way: token: with a typed token or this machine's login. account: as `name`, with the sign-in. sign-in: after one.
    none: not on this host. visitor: tells visitors apart. token: of the sign-in.
    """

    way: Literal["token", "account", "sign-in", "none"]
    visitor: str = ""
    name: str = ""
    token: str = field(default="", repr=False)


def sign_in_offered() -> bool:
    """True on a public page whose Space has OAuth."""
    space = os.environ.get("SYSTEM") == "spaces" and os.environ.get("SPACE_ID")
    configured = all(os.environ.get(name) for name in OAUTH)
    return public_mode() and bool(space) and configured and all(map(importlib.util.find_spec, LIBRARIES))


def login_of(request: Request) -> Login:
    """The login of whoever sent a request. A page of another site is told of none."""
    if not public_mode():
        return Login("token", visitor=request.client.host if request.client else "")
    if not sign_in_offered():
        return Login("none")
    info = _signed_in(request.scope.get("session") or {})
    if info is None or not _from_our_page(request):
        return Login("sign-in")
    user = info["userinfo"]
    return Login("account", str(user["sub"]), str(user.get("preferred_username", "")), str(info["access_token"]))


def check_sender(request: Request) -> None:
    """Refuses what another site's page sent with the visitor's cookie or to the visitor's machine.

    Gradio answers every origin with credentials allowed, so that the type of the body alone keeps none away.

    Raises:
        Refused: it is none of our page's.
    """
    if not _from_our_page(request):
        raise Refused("Only this page itself may push to the Hub.")


def _from_our_page(request: Request) -> bool:
    """By what browsers say of a request. Programs, which hold nobody's cookie, say nothing; a public page needs it."""
    said, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if said is not None or public_mode():
        return said == "same-origin"
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _signed_in(session: dict[str, Any]) -> dict[str, Any] | None:
    info = session.get("oauth_info")
    if not isinstance(info, dict) or not info.get("access_token") or not (info.get("userinfo") or {}).get("sub"):
        return None
    return info if info.get("expires_at") is None or info["expires_at"] > time.time() else None
