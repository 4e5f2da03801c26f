"""Cookies of the console: what they are called, and what a browser brought."""

from __future__ import annotations

from starlette.requests import HTTPConnection


def cookie_name(name: str, port: int, *, secure: bool) -> str:
    """What a cookie is called.

    Args:
        name: What for.
        port: That browsers reach the console by. Cookies are for all ports of a host: this tells two consoles apart.
        secure: Whether they reach it over TLS. Then only this host, over TLS, can have set it (RFC 6265bis).
    """
    return f"{'__Host-' if secure else ''}exequatur-{name}-{port}"


def cookie_of(request: HTTPConnection, name: str) -> str:
    """The value of a cookie; empty where there is none. Odd ones have been taken out (H38)."""
    return request.cookies.get(name, "")
