"""Asks Cedar on the authority's behalf and puts the answer into the evidence before anybody gets to know it.

Rules, numbered as the code marks them:

Q1  Nothing is allowed while it cannot be decided: the clock, the revocations or the policies are not to be relied on.
Q2  What is revoked is refused: grant, principal or workflow, whoever acts for the principal, and the bundle in force.
Q3  Cedar allows, strictly (rules E of :mod:`exequatur.policy.engine`).
Q4  The answer is in the evidence journal before it is given. An allow that cannot be recorded is none.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from exequatur.errors import JournalError
from exequatur.failures import AuthorizationDenied, AuthorizationUnavailable
from exequatur.gate.attempt import NO_ARGUMENTS
from exequatur.gate.gate import EARLIEST, LATEST, Gate
from exequatur.identity.actors import acting_facts, involved
from exequatur.identity.principal import Principal
from exequatur.lineage.journal import Journal
from exequatur.policy.action import WORKFLOW_TYPE
from exequatur.policy.engine import Verdict, decide
from exequatur.statements.encoding import compact_json
from exequatur.statements.models import Actor

logger = logging.getLogger("exequatur")

RECORD = "authority"
"""Kind of the journal's records of what an authority decided."""


class Asking:
    """The authority's questions.

    Args:
        gate: Whose policies, revocations and clock decide.
        journal: Folder of the evidence, for a process that runs no worker.
    """

    def __init__(self, gate: Gate, journal: Path) -> None:
        self.gate = gate
        self._folder = journal
        self._own: Journal | None = None
        self._opening = threading.Lock()
        self._archived: str | None = None
        """Digest of the bundle that the journal of this process's own holds."""

    async def ask(
        self,
        principal: Principal,
        action: str,
        workflow_id: str,
        facts: Mapping[str, Any],
        *,
        what: str,
        subject: Mapping[str, str | frozenset[str]] | None = None,
        record: Mapping[str, Any] | None = None,
        fault: str | None = None,
        acting: Actor | None = None,
        despite_everything: bool = False,
    ) -> Verdict:
        """Ask whether a principal may.

        Args:
            principal: On whose behalf.
            action: One of the gate's own Cedar actions.
            workflow_id: Of the workflow that is the resource.
            facts: The context without ``now``.
            what: What a denied person reads that the principal may not do, for example ``start Order``.
            subject: What else may be revoked, as :meth:`exequatur.revocation.revocations.Revocations.find` takes it.
            record: What else the evidence is to say.
            fault: Why the principal may not, whatever Cedar says.
            acting: Who acts for the principal.
            despite_everything: It may be asked although everything is revoked, or what it is about: it is how that is
                lifted. Only who is revoked may not ask.

        Raises:
            AuthorizationDenied: Q2, Q3, or there is a fault.
            AuthorizationUnavailable: Q1, Q4.
        """
        gate = self.gate
        now, policy, revocations = gate.clock(), gate.policy, gate.revocations
        if not EARLIEST <= now <= LATEST:  # [Q1]
            raise AuthorizationUnavailable(f"The clock shows {now:.0f} seconds since 1970; set it")
        await revocations.look()
        if doubt := revocations.doubt():  # [Q1]
            raise AuthorizationUnavailable(f"It is not known what is revoked: {doubt}")
        if ended := policy.ended(now):  # [Q1]
            raise AuthorizationUnavailable(f"It cannot be decided: {ended}")
        moment = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {**facts, **acting_facts(acting), "now": {"__extn": {"fn": "datetime", "arg": moment}}}
        try:
            facts_told = compact_json(told).decode()
        except ValueError as err:  # not Unicode
            raise AuthorizationDenied(f"It cannot be written down what is asked ({what!a}): {err}") from err
        who = involved(str(principal), acting)
        about: dict[str, str | frozenset[str]] = {"principal": who}
        if not despite_everything:
            about |= {"workflow": workflow_id, "bundle": policy.bundle.digest, **(subject or {})}
        revoked = revocations.find(about)
        if despite_everything and revoked is not None and revoked.everything:
            others = (each for _, each in revocations.feed.standing(now) if not each.everything)
            revoked = next((each for each in others if each.revokes(about)), None)
        verdict: Verdict | None = None
        if revoked:  # [Q2]
            why: str | None = revoked.reason
        elif fault is not None:
            why = fault
        else:
            verdict = decide(
                policy.bundle,
                principal.entity(),
                {"type": "Action", "id": action},
                {"type": WORKFLOW_TYPE, "id": workflow_id},
                NO_ARGUMENTS,
                told,
            )
            why = None if verdict.allowed else _why(verdict, action)  # [Q3]
        policies = [ref.id for ref in verdict.policies] if verdict else []
        body = {
            **(record or {}),
            "action": action,
            "workflow_id": workflow_id or None,
            "principal": str(principal),
            "vouched": {"attributes": dict(principal.attributes), "parents": [str(each) for each in principal.parents]},
            "facts": facts_told,
            "decision": "none" if verdict is None else "allow" if verdict.allowed else "deny",
            "reason": why,
            "policies": policies,
            "bundle": policy.bundle.digest,
            "bundle_sequence": policy.sequence,
        }
        try:
            await self._keep(compact_json(body))  # [Q4]
        except (JournalError, ValueError) as err:
            if why is None:
                raise AuthorizationUnavailable(f"The decision cannot be recorded: {err}") from err
            logger.error("A refusal is not in the evidence: %s", err)
        if why is not None or verdict is None:
            raise AuthorizationDenied(
                f"{principal} may not {what}: {why}", {"principal": str(principal), "policies": policies}
            )
        return verdict

    async def _keep(self, body: bytes) -> None:
        """Record it in the worker's journal, or in one of this process's own while no worker runs here.

        Raises:
            JournalError: It cannot be recorded.
            ValueError: It cannot be stored by any journal.
        """
        journal = self.gate.journal
        if journal is not None and journal.ours:
            try:
                await journal.append(RECORD, body)
                return
            except JournalError:
                if self.gate.journal is journal:
                    raise  # otherwise its worker ended just now
        own = self._own
        if own is None or not own.ours:
            own = await asyncio.to_thread(self._open)
        bundle = self.gate.policy.bundle
        if self._archived != bundle.digest:
            own.enqueue("bundle", bundle.source.archive)
            self._archived = bundle.digest
        await own.append(RECORD, body)

    def _open(self) -> Journal:
        with self._opening:
            own = self._own
            if own is None or not own.ours:
                own, self._archived = Journal.open(self._folder), None
                self._own = own
                # At the end of the process the journals close themselves.
                weakref.finalize(self, _close, own).atexit = False
            return own


def _close(journal: Journal) -> None:
    """Close it in a thread of its own: garbage is collected in any, and the journal's writer would wait for itself."""

    def close() -> None:
        with suppress(JournalError):  # logged by its writer; and a forked child has nothing to close
            journal.close()

    threading.Thread(target=close, name="exequatur-journal-close").start()


def _why(verdict: Verdict, action: str) -> str:
    named = [f"policy {ref.id}: {ref.reason}" if ref.reason else f"policy {ref.id}" for ref in verdict.policies]
    return "; ".join([*named, *verdict.errors]) or f"no policy permits the action {action}"
