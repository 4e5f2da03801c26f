"""Stands for a company's identity provider: signs tokens as an OpenID provider does, and publishes its keys."""

from __future__ import annotations

import json
import secrets
import time
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from exequatur.files import write_whole

URL = "https://id.acme.example"
AUDIENCE = "exequatur"


class Issuer:
    """An identity provider with one key.

    Args:
        folder: Where its public keys and the tokens are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir()
        self._key = ECKey.generate_key("P-256", {"kid": "acme-1", "use": "sig", "alg": "ES256"})
        self.jwks = folder / "jwks.json"
        write_whole(self.jwks, json.dumps({"keys": [self._key.as_dict(private=False)]}).encode())

    def token(
        self, subject: str, *, groups: tuple[str, ...] = (), seconds: float = 3600, name: str | None = None
    ) -> Path:
        """Write a token to a file.

        Args:
            subject: Whose it is.
            groups: What the company says about them.
            seconds: How long it is good; negative for one that has ended.
            name: Of the file.
        """
        now = int(time.time())
        claims = {
            "iss": URL,
            "aud": AUDIENCE,
            "sub": subject,
            "groups": list(groups),
            "iat": now + min(0, int(seconds) - 60),
            "exp": now + int(seconds),
            "jti": secrets.token_hex(8),
        }
        path = self._folder / f"{name or subject}.jwt"
        write_whole(path, jwt.encode({"alg": "ES256", "kid": "acme-1"}, claims, self._key).encode())
        return path
