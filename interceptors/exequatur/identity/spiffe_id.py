"""SPIFFE ids (SPIFFE-ID specification, section 2).

Rules, numbered as the code marks them:

S1  ``spiffe://`` in lower case, a trust domain of lower-case letters, digits, dots, dashes and underscores, and a path;
    no user, port, query, fragment or percent-encoding, and no more than 2048 characters. The specification lets scheme
    and trust domain be written in any case; here an id is written in one way only.
S2  A path has segments of letters, digits, dots, dashes and underscores; none is empty, ``.`` or ``..``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_ID = 2048
_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")
_SCHEME = "spiffe://"


@dataclass(frozen=True)
class SpiffeId:
    """A SPIFFE id.

    Args:
        trust_domain: Who vouches for it.
        path: Without the slash before it; empty for the trust domain itself.
    """

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read an id.

        Raises:
            ValueError: S1, S2.
        """
        domain, slash, path = text.removeprefix(_SCHEME).partition("/")
        if not text.startswith(_SCHEME) or len(text) > MAX_ID or not is_trust_domain(domain):  # [S1]
            raise ValueError("it is not a SPIFFE id, spiffe://TRUST-DOMAIN/PATH")
        if slash and not is_path(path):  # [S2]
            raise ValueError("its path is not that of a SPIFFE id")
        return cls(domain, path)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.trust_domain}/{self.path}" if self.path else f"{_SCHEME}{self.trust_domain}"


def is_trust_domain(text: str) -> bool:
    """Whether it is the name of a trust domain (S1)."""
    return bool(_DOMAIN.match(text))


def is_path(text: str) -> bool:
    """Whether it is a path without the slash before it, with at least one segment (S2)."""
    return all(_SEGMENT.match(each) and each not in (".", "..") for each in text.split("/")) and len(text) <= MAX_ID
