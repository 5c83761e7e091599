"""Who may ask: whoever has the key, if there is one, and no page of another origin."""

import hmac
import os
import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from starlette.requests import Request

from npbert.errors import InputError, quote
from npbert.serving.service import RefusedError

KEY_VARIABLE: Final = "NPBERT_API_KEY"
PORT_OF_HOST: Final = re.compile(r":\d*$")


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text is, or None."""
    try:
        return ip_address(text.strip("[]"))
    except ValueError:
        return None


def is_rebound(server: tuple[str, int | None] | None, host: str) -> bool:
    """Tell whether a name other than localhost led a browser to this machine's own address.

    A page of any name can be pointed here, in order to ask what only this machine may.
    """
    own, name = parse_address(server[0]) if server else None, PORT_OF_HOST.sub("", host)
    return bool(own and own.is_loopback) and name != "localhost" and not parse_address(name)


class Gate:
    """Who may ask: whoever has the key, if there is one, and no page of another origin.

    Parameters
    ----------
    key : str or None
    origins : list of str
        Other origins whose pages may ask, "*" for all.
    """

    def __init__(self, key: str | None, origins: Sequence[str]) -> None:
        self.key = key
        self.origins = origins

    def check(self, request: Request) -> None:
        """Let a request in.  Raises RefusedError."""
        origin, host = request.headers.get("origin"), request.headers.get("host", "")
        if origin is not None and not {"*", origin} & {*self.origins}:
            if origin.partition("://")[2] != host:
                raise RefusedError(
                    403, "pages of other origins may not ask; --cors ORIGIN lets one in"
                )
            if self.key is None and is_rebound(request.scope.get("server"), host):
                raise RefusedError(
                    403, f"{quote(host)} is another name for this machine's own address, which a "
                    f"page may ask as localhost; --cors {quote(origin)} lets this one in",
                )  # fmt: skip
        if self.key is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("latin-1"), self.key.encode())
        if scheme.lower() != "bearer" or not right:
            raise RefusedError(
                401, "expected the server's key: Authorization: Bearer KEY",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip


def read_key() -> str | None:
    """Return the key that the environment asks for.  Raises InputError for an empty one."""
    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not key.strip():
        raise InputError(f"{KEY_VARIABLE} is empty; unset it, or give it a value")
    return key and key.strip()
