"""A real OpenID provider for the tests: it logs one person in, and insists on PKCE and on its client's secret."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.identity.issuer import jwks, new_key, signed
from tests.serving import answering

CLIENT, SECRET = "exequatur-console", "provider secret: 1%"


@dataclass
class Provider:
    """What the provider does, and what it was asked.

    Args:
        url: Its issuer.
        claims: What replaces or adds to the claims of ID tokens; ``None`` leaves one out.
        answer: What replaces or adds to the parameters that the browser comes back with.
        metadata: What replaces or adds to its discovery document.
        token: Answers of the token endpoint instead of the usual: status and body.
        secret: Of its client, as RFC 6749 has it encoded; ``None`` for a client without one.
    """

    url: str
    claims: dict[str, Any] = field(default_factory=dict)
    answer: dict[str, str | None] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    token: tuple[int, bytes] | None = None
    secret: str | None = "provider+secret%3A+1%25"
    asked: list[dict[str, str]] = field(default_factory=list)
    exchanged: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    key: Any = field(default_factory=lambda: new_key("console"))

    def discovery(self) -> dict[str, Any]:
        usual = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "authorization_response_iss_parameter_supported": True,
        }
        return usual | self.metadata

    def authorize(self, query: dict[str, str]) -> str:
        """Log dana in, and send the browser back."""
        self.asked.append(query)
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        back: dict[str, str | None] = {"code": code, "state": query["state"], "iss": self.url, **self.answer}
        given = {name: value for name, value in back.items() if value is not None}
        return f"{query['redirect_uri']}?{urlencode(given)}"

    def exchange(self, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """The ID token for a code, once, to who began the login."""
        self.exchanged.append(form)
        query = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        name, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        right = (
            query is not None
            and query["code_challenge_method"] == "S256"
            and query["code_challenge"] == challenge.rstrip(b"=").decode()
            and query["redirect_uri"] == form.get("redirect_uri")
            and (self.secret is None or (name, secret) == (CLIENT, self.secret))
        )
        if not right or query is None:
            return 400, b'{"error":"invalid_grant"}'
        if self.token is not None:
            return self.token
        now = time.time()
        usual = {"iss": self.url, "sub": "dana", "aud": CLIENT, "iat": now, "exp": now + 300, "nonce": query["nonce"]}
        claims = {
            name: value for name, value in (usual | {"groups": ["ops"]} | self.claims).items() if value is not None
        }
        return 200, json.dumps({"access_token": "x", "id_token": signed(self.key, claims)}).encode()


@contextmanager
def provider() -> Iterator[Provider]:
    """Run a provider on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            match parts.path:
                case "/.well-known/openid-configuration":
                    self.say(200, json.dumps(found.discovery()).encode())
                case "/keys":
                    self.say(200, jwks(found.key))
                case "/authorize":
                    self.say(302, b"", Location=found.authorize(query))
                case _:
                    self.say(404, b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            self.say(*found.exchange(form, self.headers.get("Authorization", "")))

        def say(self, status: int, body: bytes, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with answering(Handler) as url:
        found = Provider(url)
        yield found
