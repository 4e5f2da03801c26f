"""Whose keys and code a header stands on, so that each of them can be revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exequatur.statements.jws import kid_of, parse, type_of
from exequatur.statements.models import Approval, WorkloadCredential


@dataclass(frozen=True)
class Backed:
    """What may be revoked of those who signed."""

    keys: frozenset[str] = frozenset()
    """Thumbprints: of the authority's keys and of the workers'."""
    workers: frozenset[str] = frozenset()
    """SPIFFE ids."""
    code: frozenset[str] = frozenset()
    """Digests, as credentials name them."""


def backed_by(tokens: Sequence[str]) -> Backed:
    """Who signed what came along. An approval is left out: it counts or not by itself (O15).

    Args:
        tokens: Compact tokens of a header that was verified.

    Raises:
        StatementError: V1 to V6.
    """
    kinds = [(text, type_of(text)) for text in tokens]
    credentials = [parse(text, WorkloadCredential).claims for text, kind in kinds if kind == WorkloadCredential.typ]
    return Backed(
        frozenset(kid_of(text) for text, kind in kinds if kind != Approval.typ),
        frozenset(each.sub for each in credentials),
        frozenset(each.code.digest for each in credentials if each.code is not None),
    )
