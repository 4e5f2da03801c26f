"""Activities that an operator reset, so that their attempts are counted from the first one again.

Rules, numbered as the code marks them:

F4  A decision was made after a reset of the activity if it is recorded as that, or if the evidence has another one that
    used the same request for the same attempt, scheduled before.
F5  Attempts that the history does not count are explained by a reset only if a later attempt of the number that it ends
    with is in the evidence.
"""

from __future__ import annotations

from collections.abc import Iterable

from exequatur.audit.evidence import Decision, DecisionRecord

_Key = tuple[str | None, str | None, int]


class Resets:
    """When the attempts of a run's activities were scheduled.

    Args:
        decisions: Of the run.
    """

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self._scheduled: dict[_Key, set[float]] = {}
        """When attempts were scheduled that used their request."""
        for each in decisions:
            claims = each.claims
            if claims.scheduled is not None and each.record.request is not None:
                self._scheduled.setdefault(_key(claims, claims.attempt), set()).add(claims.scheduled)

    def precedes(self, decision: Decision) -> bool:
        """Whether the activity had been reset when this was decided (F4)."""
        claims = decision.claims
        if "@" in (decision.record.request or ""):  # [F4]
            return True
        others = self._scheduled.get(_key(claims, claims.attempt), ())
        return claims.scheduled is not None and any(each < claims.scheduled for each in others)  # [F4]

    def after(self, claims: DecisionRecord, attempt: int) -> bool:
        """Whether an attempt of this number was scheduled after a decision was made (F5)."""
        others = self._scheduled.get(_key(claims, attempt), ())
        return claims.scheduled is not None and any(each > claims.scheduled for each in others)  # [F5]


def _key(claims: DecisionRecord, attempt: int) -> _Key:
    return claims.request, claims.run_id, attempt
