"""What proves to an authority who somebody is."""

from __future__ import annotations

from dataclasses import dataclass, field

JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"
"""RFC 8693, section 3."""
ACCESS_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
ID_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105
LOCAL_TYPE = "urn:exequatur:params:oauth:token-type:local"
"""A name that an authority for development believes."""
CERTIFICATE_TYPE = "urn:exequatur:params:oauth:token-type:client-certificate"
"""The TLS client certificate of the connection; the token is without meaning."""

MAX_TOKEN = 16_384
"""Characters. Providers issue a few thousand; headers of HTTP servers end at 8 or 16 KiB."""


@dataclass(frozen=True)
class Credential:
    """A token of an identity provider. It goes to the authority and nowhere else: no history, no log, no journal.

    Args:
        token: As the provider issued it.
        type: Token type URI (RFC 8693, section 3).
    """

    token: str = field(repr=False)
    type: str = JWT_TYPE
