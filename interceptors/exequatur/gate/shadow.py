"""A candidate bundle beside the one in force: asked about the same decisions, never obeyed.

Rules, numbered as the code marks them:

C1  Nothing that the candidate says reaches the gate: it is asked after the decision was made, in a thread of its own,
    about a decision that stands.
C2  Whatever goes wrong with the candidate is counted and logged here. A candidate that is refused is not asked; the
    one before it goes on being asked.
C3  It costs the worker a bounded amount: decisions that wait to be compared are few, and more are dropped and counted.
    Cedar lets no other thread run while it decides, so a candidate that takes long for one decision is given up.
C4  A disagreement is journaled only in a journal that is well, after the archive of the candidate. It names no
    arguments: the record of the decision has what is needed to make it again.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from exequatur.errors import JournalError, PolicyError
from exequatur.gate.counted import FACT, read_by
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import Verdict
from exequatur.policy.folder import PolicyFolder, PolicyWatch
from exequatur.policy.offer import Offer, PolicySource
from exequatur.release.directory import FilePlace
from exequatur.release.file import SUFFIX
from exequatur.release.unsigned import UnverifiedBundle
from exequatur.statements.encoding import compact_json

if TYPE_CHECKING:
    from exequatur.gate.attempt import Attempt, Judgement
    from exequatur.gate.gate import Gate

logger = logging.getLogger("exequatur")

WAITING = 128
"""Decisions that may wait; each holds its arguments in memory."""
_LINGER = 0.05
"""Seconds in which an activity that was just allowed begins, before its decision is compared."""
_TOO_SLOW = 0.25
"""Seconds for one decision; a thousand policies for one activity take some milliseconds."""
_LOG_INTERVAL = 60.0
"""Seconds between two log lines about one activity type and direction."""
_LOGGED = 256
"""Activity types and directions that are told apart in the log."""
_END = 2.0
"""Seconds that the end of the last worker waits for what is still to be compared."""


class Shadow:
    """Follows a candidate bundle and compares it with what the gate decides.

    Args:
        gate: Whose decisions.
        policies: A folder of policies or a bundle file. Nobody need have signed it, because it decides nothing.
    """

    def __init__(self, gate: Gate, policies: str | Path) -> None:
        self._gate = gate
        self._source = _source_of(Path(policies))
        self._candidate: PolicyBundle | None = None
        self._waiting: queue.Queue[tuple[Attempt, Judgement] | None] = queue.Queue(WAITING)
        self._archived: tuple[str, str] | None = None
        """The log and the digest of the candidate that was archived last."""
        self._logged: dict[tuple[str, str], float] = {}
        self._unlogged = 0
        self._watch: PolicyWatch | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to follow and to compare."""
        interval = self._gate.settings.policy_poll_interval.total_seconds()
        self._watch = PolicyWatch(self._source, interval, on_change=self._adopt, on_refused=self._refuse)
        self._watch.start()
        self._waiting = queue.Queue(WAITING)
        self._thread = threading.Thread(
            target=self._run, args=(self._waiting,), name="exequatur-shadow-policies", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Compare what is waiting, if it is quick, and stop."""
        watch, thread, waiting = self._watch, self._thread, self._waiting
        self._watch = self._thread = None
        if watch is not None:
            watch.stop()
        if thread is not None:
            try:
                waiting.put(None, timeout=_END)
                thread.join(_END)
            except queue.Full:
                logger.warning("Some decisions were not compared with the candidate policies")

    def beside(self, attempt: Attempt, judgement: Judgement) -> None:
        """Have a decision compared, if there is room. Never raises, and never waits.

        Args:
            attempt: What was judged.
            judgement: The decision, which stands.
        """
        try:
            if self._thread is None or self._candidate is None or judgement.decision == "none":
                return
            try:
                self._waiting.put_nowait((attempt, judgement))
            except queue.Full:  # [C3]
                self._gate.metrics.shadowed("dropped", attempt.info.activity_type)
        except Exception:  # [C2]
            logger.exception("A decision was not compared with the candidate policies")

    def _run(self, waiting: queue.Queue[tuple[Attempt, Judgement] | None]) -> None:
        while True:
            item = waiting.get()
            if item is not None and waiting.empty():
                time.sleep(_LINGER)
            if item is None:
                return
            try:
                self._compare(*item)
            except BaseException:  # [C2] a panic in Cedar's native code is not an Exception
                logger.exception("The candidate policies could not be asked")
            # Whoever waits for the interpreter goes first.
            time.sleep(0)

    def _compare(self, attempt: Attempt, judgement: Judgement) -> None:
        candidate, activity_type = self._candidate, attempt.info.activity_type
        if candidate is None or candidate.digest == judgement.bundle or judgement.entity is None:
            return
        if not attempt.resource_known:  # [C1] the candidate is not to run the activity's resolver
            return
        facts = from_json(judgement.facts)
        forbid = () if attempt.held is None else attempt.held.forbid
        if FACT not in facts and read_by(candidate, activity_type, forbid):  # what it would say is not known
            self._gate.metrics.shadowed("uncounted", activity_type)
            return
        began = time.perf_counter()
        verdict = attempt.verdict(candidate, dict(judgement.entity), facts)
        if (took := time.perf_counter() - began) > _TOO_SLOW:  # [C3]
            self._candidate = None
            logger.error(
                "Candidate policy bundle %s took %.1f s for one decision and is not compared any more",
                candidate.digest,
                took,
            )
            return
        said = "allow" if verdict.allowed else "deny"
        if said == judgement.decision:
            self._gate.metrics.shadowed("same", activity_type)
            return
        self._gate.metrics.shadowed(f"would_{said}", activity_type)
        self._journal(candidate, attempt, judgement, verdict)
        self._log(candidate, attempt, judgement, verdict)

    def _journal(self, candidate: PolicyBundle, attempt: Attempt, judgement: Judgement, verdict: Verdict) -> None:
        """C4."""
        journal = self._gate.journal
        if journal is None or not journal.healthy:  # [C4]
            return
        try:
            if self._archived != (journal.log_id, candidate.digest):
                journal.enqueue("candidate", candidate.source.archive)
                self._archived = (journal.log_id, candidate.digest)
            journal.enqueue("shadow", compact_json(_record(candidate, attempt, judgement, verdict)))
        except (JournalError, ValueError):
            logger.exception("A disagreement of the candidate policies is not in the evidence")

    def _log(self, candidate: PolicyBundle, attempt: Attempt, judgement: Judgement, verdict: Verdict) -> None:
        said = "allow" if verdict.allowed else "deny"
        key, now = (attempt.info.activity_type, said), time.monotonic()
        if now - self._logged.get(key, -_LOG_INTERVAL) < _LOG_INTERVAL:
            self._unlogged += 1
            return
        if len(self._logged) >= _LOGGED:
            self._logged.clear()
        self._logged[key] = now
        logger.warning(
            "Candidate policy bundle %s would %s %s, which was %s, by %s; %d more disagreements since the last line",
            candidate.digest,
            said,
            attempt.info.activity_type,
            "allowed" if judgement.decision == "allow" else "denied",
            ", ".join(ref.id for ref in verdict.policies) or "; ".join(verdict.errors) or "no policy",
            self._unlogged,
            extra={"candidate": candidate.digest, "bundle": judgement.bundle},
        )
        self._unlogged = 0

    def _adopt(self, offer: Offer) -> None:
        # Not accepted at its source: only what is put in force moves its marks.
        self._candidate = offer.bundle
        logger.info("Candidate policy bundle %s is compared", offer.bundle.digest)

    def _refuse(self, error: PolicyError) -> None:  # [C2]
        kept = f"bundle {self._candidate.digest} goes on" if self._candidate else "none"
        logger.error("The candidate policies were refused, and %s being compared: %s", kept, error)


def _source_of(path: Path) -> PolicySource:
    return UnverifiedBundle(FilePlace(path)) if path.name.endswith(SUFFIX) else PolicyFolder(path)


def _record(candidate: PolicyBundle, attempt: Attempt, judgement: Judgement, verdict: Verdict) -> dict[str, Any]:
    """The journal's record of a disagreement."""
    info = attempt.info
    return {
        "request": attempt.request_id,
        "workflow_id": attempt.workflow_id,
        "run_id": attempt.run_id or None,
        "activity_id": info.activity_id,
        "activity_type": info.activity_type,
        "attempt": info.attempt,
        "bundle": candidate.digest,
        "decision": "allow" if verdict.allowed else "deny",
        "policies": [ref.id for ref in verdict.policies],
        "errors": list(verdict.errors),
        "enforced": {
            "bundle": judgement.bundle,
            "decision": judgement.decision,
            "policies": [ref.id for ref in judgement.policies],
        },
    }
