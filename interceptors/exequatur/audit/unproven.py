"""What nothing that was signed speaks for: the report repeats it, and says that it is unproven.

Rules, numbered as the code marks them:

N1  How an activity ended is proven by the receipt that came with its end, or by one in the evidence for that attempt.
N2  A run's id is proven by any statement or record of the run that names it.
N3  A history that does not end shows nothing of what may have followed.
N4  Everything that no statement is about is as the server says, until a checkpoint covers it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from exequatur.audit.history import RunHistory
from exequatur.audit.proofs import Proof
from exequatur.audit.report import Finding, finding
from exequatur.errors import StatementError
from exequatur.statements.jws import Token
from exequatur.statements.models import Receipt
from exequatur.statements.verification import Chain, Credentials, Scope

_Ends = Mapping[tuple[str | None, int, str], Token[Receipt]]


def unproven(
    history: RunHistory,
    proofs: Sequence[Proof],
    chain: Chain,
    receipts: Sequence[Token[Receipt]],
    credentials: Sequence[Credentials],
    *,
    named: bool,
) -> Iterator[Finding]:
    """Say what is unproven about a governed run.

    Args:
        history: The run.
        proofs: Of its activities.
        chain: Its verified grant.
        receipts: Those in the evidence; none of them is believed yet.
        credentials: Those that came with the history.
        named: Whether a seal or a decision names the run's id.
    """
    ends: _Ends = {(each.claims.request, each.claims.attempt, each.claims.outcome): each for each in receipts}
    count = sum(proof.receipt is None and not _shown(proof, ends, chain, credentials) for proof in proofs)
    if count:  # [N1]
        sentence = f"No receipt shows how {count} activities ended; their ids, attempts and ends are as the server says"
        yield finding("end-unproven", sentence)
    statements = (statement for proof in proofs for statement in (proof.request, proof.receipt) if statement)
    whole = all(proof.request is not None for proof in proofs if not proof.activity.local)
    if not named and whole and all(statement.claims.run_id != history.run_id for statement in statements):  # [N2]
        yield finding("run-id-unproven", f"Nothing that was signed names run {history.run_id}: it asked for nothing")
    if history.outcome == "open":  # [N3]
        yield finding("run-open", "The history does not show an end; if the run went on, that was not audited")
    yield finding(  # [N4]
        "events-unproven",
        "No checkpoint covers this run: what no statement is about (timers, children's results, the workflow's "
        "own, the order of the last ends) is as the server says",
    )


def _shown(proof: Proof, ends: _Ends, chain: Chain, credentials: Sequence[Credentials]) -> bool:
    """Whether a receipt in the evidence says that the last attempt ended as the history has it."""
    activity = proof.activity
    receipt = ends.get((proof.core.hash(), activity.attempt, activity.outcome)) if proof.core is not None else None
    if receipt is None or receipt.claims.activity_id != activity.activity_id:
        return False
    scope = Scope(chain.site, chain.namespace, activity.task_queue, activity.activity_type)
    for held in credentials:
        try:
            held.verify(receipt, "receipt", scope)
        except StatementError:
            continue
        return True
    return False
