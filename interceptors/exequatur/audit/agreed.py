"""Whether people have agreed: challenges in failures, the approvals that signals brought, and what came of them.

Rules, numbered as the code marks them (O are those of :mod:`exequatur.statements.approvals` and
:mod:`exequatur.gate.challenge`):

E1  A challenge in a failure verifies (O1, O2, O4), is of the very request that failed, comes from the worker that
    signed the failure's record, and ends when it has to (O17, O19).
E2  It asks for whom the archived policies ask, no fewer and no others (O16, O18).
E3  What comes with an activity are a challenge that failed in this run before, and approvals that signals had brought.
E4  Nobody had rejected it before enough had agreed.
E5  One challenge lets one request pass.
E6  A decision counts those whose approvals came with its request, lasted, and were not revoked as far as its worker
    knew (O11, O15), and nobody else. A denial may count nobody (O27).
E7  Of a local activity, whose header Temporal does not record, the approvals are those that signals had brought for a
    challenge of the same activity with the same arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.activities import seconds
from exequatur.audit.history import RunHistory
from exequatur.errors import StatementError, UnknownKeyError
from exequatur.gate.challenge import Agreed, asked_for
from exequatur.gate.challenges import MAX_EARLY, challenge_of
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.statements.approvals import APPROVAL_SIGNAL, Agreement, satisfied, verify_approval, verify_challenge
from exequatur.statements.encoding import strict_json
from exequatur.statements.jws import Token
from exequatur.statements.models import Approval, Challenge, Receipt, RequestCore
from exequatur.statements.trust import TrustStore
from exequatur.statements.verification import Chain

_TICK = 0.001
"""Seconds. Cedar is told the time in whole milliseconds."""
Standing = Callable[[Approval], bool]
"""Whether somebody who agreed had not been revoked."""


@dataclass(frozen=True)
class Signalled:
    """What a signal brought.

    Args:
        event_id: Of the signal.
        text: What should be an approval.
        heard: The workflow's time when it was handled; ``None`` if it never was.
        challenge: Digest of the challenge that it says it is for; ``None`` where it is no approval.
    """

    event_id: int
    text: str
    heard: float | None
    challenge: str | None


@dataclass(frozen=True)
class Asked:
    """A challenge, and the event that brought it."""

    challenge: Token[Challenge]
    event_id: int


class Challenges:
    """The challenges of one run.

    Args:
        history: The run.
        aud: Of its grant.
        trust: The anchors.
    """

    def __init__(self, history: RunHistory, aud: str, trust: TrustStore) -> None:
        self._aud = aud
        self._trust = trust
        self._events = history.events
        self.signals = list(_signalled(history.events))
        self._brought: dict[str, list[Signalled]] = {}
        for each in self.signals:
            if each.challenge is not None:
                self._brought.setdefault(each.challenge, []).append(each)
        self._asked: dict[str, Asked] = {}
        self._passed: dict[str, str] = {}
        """For each challenged request the one that passed."""
        self.counted: set[int] = set()
        """Events of the signals whose approvals belong to a challenge of this run."""

    def failed(
        self,
        text: str,
        credential: str,
        receipt: Receipt,
        expected: Mapping[str, object],
        chain: Chain,
        event_id: int,
    ) -> Token[Challenge]:
        """E1: take a challenge from a failure.

        Args:
            text: Compact token.
            credential: Of the worker.
            receipt: The failure's record, verified.
            expected: What the challenge has to name.
            chain: What the request stands on.
            event_id: Of the failure.

        Raises:
            UnknownKeyError: The trust store does not know the key behind the credential.
            StatementError: E1.
        """
        challenge = verify_challenge(text, credential, self._trust, site=chain.site)  # [E1]
        claims, grant = challenge.claims, chain.grant.claims
        if grant.ver < 2 or grant.mode != "enforce":  # [E1]
            raise StatementError("E1", "The run cannot answer a challenge")
        for name, due in {**expected, "iss": receipt.iss, "bundle": receipt.bundle, "sub": grant.sub}.items():
            if getattr(claims, name) != due:  # [E1]
                raise StatementError("E1", f"The challenge names another {name.replace('_', ' ')}")
        longest = min(need.ttl for need in claims.needs)
        if claims.exp > claims.iat + longest + 1 or claims.exp > (grant.renew_until or chain.expires) + 1:  # [E1]
            raise StatementError("E1", "The challenge is open for longer than it may be")
        self._asked[challenge.digest] = Asked(challenge, event_id)
        return challenge

    def answered(self, agreement: Agreement, event_id: int) -> None:
        """E3 and E4: check what came with a request.

        Raises:
            UnknownKeyError: The trust store does not know a key.
            StatementError: E3 or E4.
        """
        asked = self._asked.get(agreement.challenge.digest)
        if asked is None or asked.event_id >= event_id:  # [E3]
            raise StatementError("E3", "It answers a challenge that no activity of this run failed with before")
        signals = self._brought.get(agreement.challenge.digest, ())
        brought = {each.text for each in signals if each.event_id < event_id}
        for approval in agreement.approvals:
            if approval.text not in brought:  # [E3]
                raise StatementError("E3", f"No signal of this run brought the approval of {approval.claims.sub}")
        if (who := self._rejected(asked, event_id)) is not None:  # [E4]
            raise StatementError("E4", f"{who} had rejected it")

    def _rejected(self, asked: Asked, before: int) -> str | None:
        """Who rejected a challenge before enough people had agreed."""
        # Of many that came before the challenge was open, the workflow has forgotten the first ones.
        lasting = asked.event_id if len(self.signals) <= MAX_EARLY else _done_after(self._events, asked.event_id)
        approvals: dict[str, Approval] = {}
        for event_id, claims in self._of(asked.challenge, before):
            if claims.verdict == "reject":
                if event_id > lasting:
                    return claims.sub
                continue
            approvals[claims.sub] = claims
            groups, _ = satisfied(asked.challenge.claims, approvals.values(), now=0)
            if set(groups) == {need.group for need in asked.challenge.claims.needs}:
                return None
        return None

    def _of(self, challenge: Token[Challenge], before: int) -> Iterator[tuple[int, Approval]]:
        """The approvals of a challenge that were handled before an event and had not ended then."""
        for each in self._brought.get(challenge.digest, ()):
            if each.event_id >= before or each.heard is None:
                continue
            try:
                approval = verify_approval(each.text, challenge, self._trust, aud=self._aud, now=each.heard)
            except UnknownKeyError:
                raise
            except StatementError:
                continue
            self.counted.add(each.event_id)
            yield each.event_id, approval.claims

    def passed(self, challenge: Token[Challenge], request: str) -> str | None:
        """E5: what is wrong with a request that passed."""
        first = self._passed.setdefault(challenge.claims.request, request)
        again = "people agreed to one request, and another one passed with that before"
        return None if first == request else again  # [E5]

    def miscounted(
        self, agreement: Agreement | None, told: object, at: float, standing: Sequence[Standing], *, allowed: bool
    ) -> str | None:
        """E6: what is wrong with whom a decision counts.

        Args:
            agreement: What came with the request.
            told: The fact ``approvals``; ``None`` where there is none.
            at: When it was decided.
            standing: Whose approvals stand, in each way that the worker may have known of revocations.
            allowed: Whether it was decided that the activity may run.
        """
        if told is None and not allowed:
            return None
        if agreement is None:
            return None if told is None else "it counts approvals, and none came with its request"
        claims = agreement.challenge.claims
        if any(
            told == _fact(claims, [each.claims for each in agreement.approvals if stands(each.claims)], at + tick)
            for stands in standing
            for tick in (0, _TICK)
        ):
            return None
        return "it does not count the people whose approvals came with its request and lasted"  # [E6]

    def of_local(
        self, core: RequestCore, args: str | None, told: object, at: float, event_id: int, standing: Sequence[Standing]
    ) -> tuple[Token[Challenge] | None, str | None]:
        """E7: the challenge that a local activity's request answers, or what is wrong.

        Args:
            core: Of the request.
            args: Digest of its arguments.
            told: The fact ``approvals``.
            at: When it was decided.
            event_id: Of the marker.
            standing: As for :meth:`miscounted`.
        """
        approvers = told.get("approvers") if isinstance(told, dict) else None
        request = core.hash()
        for asked in self._asked.values():
            claims = asked.challenge.claims
            fits = (claims.activity_type, claims.args) == (core.activity_type, args) and asked.event_id < event_id
            free = self._passed.get(claims.request, request) == request
            if not fits or not free or not isinstance(approvers, list):
                continue
            brought = {each.sub: each for _, each in self._of(asked.challenge, event_id) if each.verdict == "approve"}
            chosen = [brought[who] for who in approvers if who in brought]
            for stands in standing:
                if told in [_fact(claims, filter(stands, chosen), at + tick) for tick in (0, _TICK)]:
                    return asked.challenge, None
        return None, "no challenge of this run and no approvals that signals brought are those that it counts"  # [E7]

    def repeats(self, challenge: Challenge) -> bool:
        """Whether the run was challenged before about the same activity with the same arguments."""
        about = (challenge.activity_type, challenge.args)
        others = (each.challenge.claims for each in self._asked.values())
        return any((each.activity_type, each.args) == about and each.request != challenge.request for each in others)

    def unused(self) -> list[int]:
        """Events of signals whose approvals counted for no challenge of this run."""
        for asked in self._asked.values():
            for _ in self._of(asked.challenge, self._events[-1].event_id + 1):
                pass
        return [each.event_id for each in self.signals if each.event_id not in self.counted]


def misasked(
    challenge: Challenge, bundle: PolicyBundle, verdict: Verdict, agreement: Agreement | None, told: object
) -> str | None:
    """E2: whom a challenge asks for that the policies do not, or the other way round.

    Args:
        challenge: Verified.
        bundle: The archived policies that denied.
        verdict: What they say.
        agreement: What came with the request that was denied.
        told: The fact ``approvals``, verified.
    """
    groups = told.get("groups") if isinstance(told, dict) else None
    already = Agreed(tuple(groups) if isinstance(groups, list) else ())
    due = asked_for(bundle, verdict, agreement, already)
    named = [{(need.group, need.quorum, need.ttl) for need in needs} for needs in (due, challenge.needs)]
    others = "its challenge asks for other people than the archived policies do"
    return None if named[0] == named[1] else others  # [E2]


def _fact(challenge: Challenge, approvals: Iterable[Approval], now: float) -> dict[str, Any] | None:
    """The fact ``approvals`` as the gate tells it."""
    groups, approvers = satisfied(challenge, approvals, now=now)
    return {"groups": list(groups), "approvers": list(approvers)} if approvers else None


def _signalled(events: Sequence[HistoryEvent]) -> Iterator[Signalled]:
    heard: float | None = None
    found: list[Signalled] = []
    # Backwards: a signal is handled at the time of the next task that the worker completed.
    starts = {
        each.event_id: seconds(each) for each in events if each.HasField("workflow_task_started_event_attributes")
    }
    for event in reversed(events):
        if event.HasField("workflow_task_completed_event_attributes"):
            started = event.workflow_task_completed_event_attributes.started_event_id
            heard = starts.get(started, heard)
        elif event.HasField("workflow_execution_signaled_event_attributes"):
            signal = event.workflow_execution_signaled_event_attributes
            if signal.signal_name == APPROVAL_SIGNAL:
                text = _text(signal.input.payloads)
                found.append(Signalled(event.event_id, text, heard, challenge_of(text)))
    return reversed(found)


def _text(payloads: Sequence[Any]) -> str:
    try:
        given = strict_json(payloads[0].data) if payloads else None
    except ValueError:
        return ""
    return given if isinstance(given, str) else ""


def _done_after(events: Sequence[HistoryEvent], event_id: int) -> int:
    """The first workflow task that was completed after an event."""
    for event in events:
        if event.event_id > event_id and event.HasField("workflow_task_completed_event_attributes"):
            return event.event_id
    return events[-1].event_id
