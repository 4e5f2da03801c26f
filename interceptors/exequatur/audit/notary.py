"""A notary: signs the heads of histories, outside of the Temporal server that could rewrite them.

For each run it keeps a log whose leaves are the run's events, and for each namespace one whose leaves are the heads of
those. So a run that has disappeared as a whole is missed, too.

Rules, numbered as the code marks them:

N1  A checkpoint is signed only if the events still hold every checkpoint of this run that the store has.
N2  Only events that are there to stay are covered, and none with a field that this version does not know.
N3  A head that was signed is in the namespace's log, before its checkpoint is handed out.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client
from temporalio.service import RPCError

from exequatur.audit.bundle import verify_note
from exequatur.audit.history import RunHistory, of_events
from exequatur.audit.leaves import leaf, settled, tree_of
from exequatur.audit.trust import AuditTrust
from exequatur.errors import EvidenceError, ExequaturError
from exequatur.lineage import checkpoint as checkpoints
from exequatur.lineage.checkpoint import Checkpoint, head_leaf, namespace_origin, run_origin
from exequatur.lineage.link import genesis_of
from exequatur.lineage.merkle import Tree, leaf_hash, verify_inclusion
from exequatur.lineage.note import VerifierKey
from exequatur.lineage.record import Record, fold, head_text, record_bytes
from exequatur.lineage.store import EvidenceStore
from exequatur.statements.encoding import from_base64url, strict_json, to_base64url
from exequatur.statements.keys import Signer

logger = logging.getLogger("exequatur")

PROOF = "exequatur inclusion proof v1"
_TRIES = 20
"""Notaries that append to one namespace's log at the same time take turns."""


@dataclass(frozen=True)
class Sealed:
    """What was signed.

    Args:
        run: The note over the run's events.
        namespace: The note over the namespace's log.
        fresh: Whether the run had grown since it was signed last.
    """

    run: str
    namespace: str
    fresh: bool


class Notary:
    """Signs with one key for one site and namespace.

    Args:
        store: Where checkpoints and the namespace's log are kept.
        signer: The notary's key; it signs nothing else.
        name: Its key name, for example ``example.org/notary``.
        site: Trust domain and cluster, for example ``example.org/main``.
        namespace: The Temporal namespace.
    """

    def __init__(self, store: EvidenceStore, signer: Signer, name: str, *, site: str, namespace: str) -> None:
        self._store = store
        self._signer = signer
        self._name = name
        self._site = site
        self._namespace = namespace
        self.key = VerifierKey(name, signer.x)
        self._origin = namespace_origin(site, namespace)
        self._log = hashlib.sha256(self._origin.encode()).hexdigest()[:16]

    def seal(self, history: RunHistory) -> Sealed:
        """Sign the head of a run.

        Args:
            history: As Temporal has it, not decoded.

        Raises:
            EvidenceError: N1: the history is not the one that was signed before; or the store cannot be used.
        """
        size = settled(history.events)  # [N2]
        tree = tree_of(history.events[:size])
        origin = run_origin(self._site, self._namespace, history.workflow_id, history.run_id)
        latest: Checkpoint | None = None
        for note in self._store.checkpoints(origin):
            latest = checkpoints.verify(note, (self.key,))
            if latest.size > size or tree.root(latest.size) != latest.root:  # [N1]
                raise EvidenceError(
                    f"{history.workflow_id}, run {history.run_id}: the first {latest.size} events are not those that "
                    "were signed before; the history was changed, keep both"
                )
        head = Checkpoint(origin, size, tree.root())
        note = checkpoints.sign(head, self._name, self._signer)
        fresh = latest is None or latest.size < size
        namespace = self._enter(head) if fresh else self._namespace_note()
        if fresh:
            self._store.add_checkpoint(note, origin, size, head.root)
        return Sealed(note, namespace, fresh)

    def _enter(self, head: Checkpoint) -> str:
        """N3: append a head to the namespace's log."""
        body = head_leaf(head.origin, head.size, head.root)
        for attempt in range(_TRIES):
            tree, size, previous = self._heads()
            at = time.time()
            after = fold(from_base64url(previous), record_bytes("head", at, None, None, None, body))
            record = Record(self._log, size, at, "head", None, None, None, body, head_text(after))
            try:
                self._store.append(self._log, [record], previous)
            except EvidenceError:
                if attempt == _TRIES - 1:
                    raise
                continue  # another notary was faster
            tree.append(leaf_hash(body))
            return self._sign(tree)
        raise AssertionError

    def _heads(self) -> tuple[Tree, int, str]:
        """The tree over the namespace's log, its size and its linked head."""
        tree, previous = Tree(), genesis_of(self._log)
        for link in self._store.records(self._log):
            tree.append(leaf_hash(link.record.body))
            previous = link.record.head
        return tree, len(tree), previous

    def _namespace_note(self) -> str:
        return self._sign(self._heads()[0])

    def _sign(self, tree: Tree) -> str:
        head = Checkpoint(self._origin, len(tree), tree.root())
        note = checkpoints.sign(head, self._name, self._signer)
        self._store.add_checkpoint(note, head.origin, head.size, head.root)
        return note

    async def follow(
        self, client: Client, *, every: timedelta = timedelta(minutes=1), since: timedelta = timedelta(hours=1)
    ) -> None:
        """Seal runs as they close, and open ones as they grow, until it is cancelled.

        Args:
            client: A client of the namespace.
            every: How often to look.
            since: Runs that closed longer ago than this before the first look are left alone.
        """
        begins = datetime.now(UTC) - since
        while True:
            looked = datetime.now(UTC)
            await self.seal_all(client, f"ExecutionStatus = 'Running' OR CloseTime > '{begins.isoformat()}'")
            # Visibility lags behind; what is sealed twice is signed once.
            begins = looked - timedelta(minutes=1)
            await asyncio.sleep(every.total_seconds())

    async def seal_all(self, client: Client, query: str) -> tuple[int, int]:
        """Seal all runs that a visibility query finds.

        Returns:
            How many were sealed, and how many could not be; those are logged.
        """
        sealed = failed = 0
        try:
            async for found in client.list_workflows(query):
                try:
                    history = await fetch(client, found.id, found.run_id)
                    await asyncio.to_thread(self.seal, history)
                    sealed += 1
                except (ExequaturError, RPCError) as error:
                    failed += 1
                    logger.error("Run %s of %s was not sealed: %s", found.run_id, found.id, error)
        except RPCError as error:
            logger.error("Runs could not be listed and were not sealed: %s", error)
        return sealed, failed


async def fetch(client: Client, workflow_id: str, run_id: str | None = None) -> RunHistory:
    """Fetch a run's history from a server.

    Raises:
        EvidenceError: It has none, or one with fields that this version does not know.
        RPCError: The server cannot be asked.
    """
    history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
    return of_events(history.events, workflow_id=workflow_id, source=f"workflow {workflow_id}")


def prove(history: RunHistory, note: str, event_id: int) -> dict[str, Any]:
    """Prove that an event is among those that a checkpoint covers; the proof verifies offline.

    Args:
        history: As Temporal has it, not decoded.
        note: A checkpoint of the run.
        event_id: The event.

    Raises:
        EvidenceError: The checkpoint does not cover the event, or is not of this history.
    """
    head = checkpoints.claimed(note)
    if not 1 <= event_id <= head.size <= len(history.events):
        raise EvidenceError(f"the checkpoint covers {head.size} events, and event {event_id} is not one of them")
    tree = tree_of(history.events[: head.size])
    if tree.root() != head.root:
        raise EvidenceError("the checkpoint is not of this history")
    return {
        "version": PROOF,
        "checkpoint": note,
        "index": event_id - 1,
        "leaf": leaf(history.events[event_id - 1]).decode(),
        "hashes": [to_base64url(each) for each in tree.inclusion_proof(event_id - 1, head.size)],
    }


def verify_proof(data: bytes, trust: AuditTrust) -> tuple[Checkpoint, dict[str, Any]]:
    """Verify an inclusion proof.

    Args:
        data: JSON as :func:`prove` makes it.
        trust: Names the notaries and witnesses that count.

    Returns:
        The checkpoint and the event that it covers.

    Raises:
        EvidenceError: It is no proof of a known version, or does not verify.
    """
    try:
        proof = strict_json(data)
        if not isinstance(proof, dict) or proof.get("version") != PROOF:
            raise ValueError("it is not an inclusion proof of a known version")
        if set(proof) != {"version", "checkpoint", "index", "leaf", "hashes"} or not isinstance(proof["index"], int):
            raise ValueError("a member is missing, unknown or ill-typed")
        hashes = [from_base64url(each) for each in proof["hashes"]]
        text: bytes = proof["leaf"].encode()
        event = json.loads(text)
        note = str(proof["checkpoint"])
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise EvidenceError(f"the proof cannot be read: {error}") from None
    head = verify_note(note, trust)
    verify_inclusion(leaf_hash(text), proof["index"], head.size, hashes, head.root)
    return head, event
