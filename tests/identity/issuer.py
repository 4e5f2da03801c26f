"""A real identity provider for the tests: it signs tokens, and publishes its keys on this machine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.serving import answering

NOW = 1_800_000_000.0
ISSUER = "https://login.example.com"

Key = RSAKey | ECKey | OKPKey


def new_key(kid: str, kind: str = "EC") -> Key:
    parameters: Any = {"kid": kid, "use": "sig"}
    match kind:
        case "RSA":
            return RSAKey.generate_key(2048, parameters)
        case "OKP":
            return OKPKey.generate_key("Ed25519", parameters)
        case "EC-384":
            return ECKey.generate_key("P-384", parameters)
    return ECKey.generate_key("P-256", parameters)


def jwks(*keys: Key, **more: Any) -> bytes:
    return json.dumps({"keys": [{**key.as_dict(private=False), **more} for key in keys]}).encode()


def segment(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def claims(**changes: Any) -> dict[str, Any]:
    """Claims of an ordinary token; ``None`` leaves one out."""
    usual = {"iss": ISSUER, "sub": "dana", "aud": "exequatur", "iat": NOW - 10, "exp": NOW + 300} | changes
    return {name: value for name, value in usual.items() if value is not None}


def signed(key: Key, payload: Any, algorithm: str = "ES256", **header: Any) -> str:
    """A compact token; header members that are ``None`` are left out."""
    whole = {"alg": algorithm, "kid": key.kid, "typ": "JWT"} | header
    text = f"{segment({name: value for name, value in whole.items() if value is not None})}.{segment(payload)}"
    signature = JWSRegistry.algorithms[algorithm].sign(text.encode(), key)
    return f"{text}.{segment(signature)}"


def signed_with_hmac(secret: bytes, payload: Any, **header: Any) -> str:
    """What an attacker makes who hopes that a public key is taken for a secret."""
    text = f"{segment({'alg': 'HS256', 'typ': 'JWT'} | header)}.{segment(payload)}"
    return f"{text}.{segment(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


@dataclass
class Site:
    """A web server whose answers a test sets, by path: status, headers, body."""

    url: str
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    delay: float = 0.0

    def publish(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        self.answers[path] = (status, headers, body)


@contextmanager
def site() -> Iterator[Site]:
    """Run a web server on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.asked.append(self.path)
            status, headers, body = found.answers.get(self.path, (404, {}, b""))
            time.sleep(found.delay)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:  # whoever asked has gone
                pass

        def log_message(self, *_: Any) -> None:
            pass

    with answering(Handler) as url:
        found = Site(url)
        yield found


class Steady:
    """A steady clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
