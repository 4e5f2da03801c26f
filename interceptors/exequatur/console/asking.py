"""What Cedar says of a viewer, and what a viewer does: through the same calls as the authority service.

Rules, numbered as the code marks them (Q are those of :mod:`exequatur.authority.asking`, H those of
:mod:`exequatur.authority.service.revoking`, L those of :mod:`exequatur.authority.approvals`):

V1  A page is shown only after Cedar strictly allowed the action ``console.view`` for this viewer and page. The answer
    is not recorded: looking changes nothing.
V2  While it cannot be decided, nothing is shown: there are no policies, or their release has ended.
V3  Whoever is revoked sees nothing. That everything or a workflow is revoked does not stand in the way of those who are
    to look at it and lift it.
V4  What a viewer does is done by the audited calls of the authority, which ask Cedar and record the answer first: the
    principal is the session's, never what a request says. What is foreseen here beforehand leaves out buttons, is not
    recorded, and decides nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from temporalio.client import Client

from exequatur.approvals import OpenChallenge, Trusted, answer
from exequatur.assembly import Parts
from exequatur.authority.api import RevocationBody
from exequatur.authority.approvals import facts_of, groups_of
from exequatur.authority.asking import Asking
from exequatur.authority.embedded import EmbeddedAuthority
from exequatur.authority.service.revoking import revoke
from exequatur.console.foreseen import may_ever
from exequatur.console.viewer import Viewer
from exequatur.errors import ConfigurationError
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.gate import Gate
from exequatur.identity.actors import involved
from exequatur.identity.callers import Identified
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.engine import decide
from exequatur.policy.told import APPROVE_ACTION, REJECT_ACTION, SELF_ACTION, VIEW_ACTION
from exequatur.statements.models import Approval, Challenge

_FRESH = 1.0
"""Seconds for which the policies are not looked at again."""
_PATIENCE = 2.0
"""Seconds for which a page waits for a database that does not answer, before it goes by what was known."""


@dataclass(frozen=True)
class Seen:
    """Whether a viewer may see a page.

    Args:
        allowed: Whether.
        why: Why not.
        step: What to do about it, where no policy helps.
    """

    allowed: bool
    why: str = ""
    step: str = ""


class Governing:
    """Asks and acts with the authority of a state folder.

    Args:
        parts: The authority, with its policies and revocations.

    Raises:
        ConfigurationError: The authority is elsewhere.
    """

    def __init__(self, parts: Parts) -> None:
        if not isinstance(parts.authority, EmbeddedAuthority):
            raise ConfigurationError("A console needs the keys of the authority: name its state folder with --state")
        self._parts = parts
        self._authority = parts.authority
        self._asking = Asking(parts.gate, parts.authority.state.journal)
        self._looked = float("-inf")
        self._begun = float("-inf")
        self._looking: asyncio.Task[None] | None = None

    @property
    def gate(self) -> Gate:
        """Policies, revocations and clock."""
        return self._parts.gate

    @property
    def trusted(self) -> Trusted:
        """What verifies challenges."""
        gate = self.gate
        return Trusted(gate.trust, gate.settings.trust_domain, gate.settings.cluster, gate.clock)

    async def refresh(self) -> None:
        """Bring policies and revocations up to date; at most once a second, and all who ask share the look."""
        if time.monotonic() - self._looked < _FRESH:
            return
        if self._looking is None or self._looking.done():
            self._begun = time.monotonic()
            self._looking = asyncio.ensure_future(self._look())
        with contextlib.suppress(TimeoutError):
            left = self._begun + _PATIENCE - time.monotonic()
            await asyncio.wait_for(asyncio.shield(self._looking), max(0.0, left))

    async def _look(self) -> None:
        await self._parts.serving.refresh()
        await self.gate.revocations.look()
        self._looked = time.monotonic()

    async def may_see(self, viewer: Viewer, page: str, workflow_id: str = "") -> Seen:
        """Ask whether a viewer may see a page.

        Args:
            viewer: Who looks.
            page: Its name.
            workflow_id: Of the workflow that it shows, if it shows one.

        Raises:
            PolicyError: The policies cannot be looked at.
        """
        await self.refresh()
        gate = self.gate
        now, policy = gate.clock(), gate.policy
        if ended := policy.ended(now):  # [V2]
            return Seen(False, f"It cannot be decided: {ended}", "Release the policies again.")
        who = {"principal": str(viewer.principal)}
        standing = (each for _, each in gate.revocations.feed.standing(now))
        if revoked := next((each for each in standing if not each.everything and each.revokes(who)), None):  # [V3]
            return Seen(False, f"Revoked: {revoked.reason}", "Ask who governs here to lift that revocation.")
        return self._asked(viewer, VIEW_ACTION, workflow_id, {"console": {"page": page, "redacted": viewer.public}})

    def _asked(self, viewer: Viewer, action: str, workflow_id: str, facts: Mapping[str, Any]) -> Seen:
        """Ask Cedar now, and record nothing."""
        moment = datetime.fromtimestamp(self.gate.clock(), UTC).isoformat(timespec="milliseconds")
        verdict = decide(
            self.gate.policy.bundle,
            viewer.principal.entity(),
            {"type": "Action", "id": action},
            {"type": WORKFLOW_TYPE, "id": workflow_id},
            NO_ARGUMENTS,
            {**facts, "now": {"__extn": {"fn": "datetime", "arg": moment.replace("+00:00", "Z")}}},
        )
        if verdict.allowed:  # V1
            return Seen(True)
        named = [f"policy {ref.id}: {ref.reason}" if ref.reason else f"policy {ref.id}" for ref in verdict.policies]
        return Seen(False, "; ".join([*named, *verdict.errors]) or f"no policy permits {action} to {viewer.principal}")

    def may_answer(self, viewer: Viewer, claims: Challenge) -> dict[Literal["approve", "reject"], Seen]:
        """Foresee whether a viewer's approval, and rejection, of a challenge would be signed (L3 to L5).

        Args:
            viewer: Who would answer.
            claims: What is asked.
        """
        who = viewer.principal
        groups = groups_of(who, self.gate.policy.bundle.source.entity_documents, claims.needs)
        if not groups:
            asked = " or ".join(need.group for need in claims.needs)
            nobody = Seen(False, f"{asked} is asked; you are not in it")
            return {"approve": nobody, "reject": nobody}
        facts = facts_of(claims, groups)
        approves = self._asked(viewer, APPROVE_ACTION, claims.workflow_id, facts)
        if approves.allowed and str(who) in involved(claims.sub, claims.act):
            approves = self._asked(viewer, SELF_ACTION, claims.workflow_id, facts)
        return {"approve": approves, "reject": self._asked(viewer, REJECT_ACTION, claims.workflow_id, facts)}

    async def may_ever(self, viewer: Viewer, action: str) -> bool:
        """Foresee whether the policies could permit a viewer an action, whatever it is about."""
        return await asyncio.to_thread(may_ever, self.gate.policy.bundle, viewer.principal, action)

    async def revoke(self, viewer: Viewer, body: RevocationBody) -> int:
        """Revoke, or lift a revocation (H32, H33).

        Returns:
            The feed's version with the entry in it.

        Raises:
            Refused: There is no such entry to lift, or nothing is named.
            AuthorizationDenied: Cedar does not allow it.
            AuthorizationUnavailable: It cannot be decided or recorded.
            ExequaturError: It could not be written.
        """
        await self.refresh()
        who = viewer.principal  # [V4]
        caller = Identified(who, None, who, None, self.gate.clock(), (), ("console",))
        return (await revoke(self._asking, body, caller)).version

    async def answer(
        self,
        viewer: Viewer,
        client: Client,
        challenge: OpenChallenge,
        verdict: Literal["approve", "reject"],
        reason: str | None,
    ) -> Approval:
        """Agree to what a run waits for, or refuse it.

        Raises:
            ChallengeError: The run has ended.
            AuthorizationDenied: The viewer may not answer this.
            AuthorizationUnavailable: It cannot be decided or recorded.
        """
        await self.refresh()
        who = viewer.principal  # [V4]
        return await answer(client, self._authority, who, challenge, verdict, reason)
