"""What policies were told of the worker's code, against what its journal and its credential say.

Rules, numbered as the code marks them:

D10  Code that was told as measured is that of the manifest by which the worker's journal says, last before the
     decision, that it was verified.
D11  No result counts of an attempt that was allowed after its worker's journal said that it is not what its manifest
     says.
D12  Code that was told as attested is attested by the worker's credential; a credential that names code names the same.
D13  Where the journal's records of it are not in the evidence, it could not be checked.

Journal and facts are the worker's own word until its code is attested.
"""

from __future__ import annotations

from collections.abc import Sequence

from exequatur.audit.decisions import Wrong
from exequatur.audit.evidence import Decision, IntegrityRecord, facts_of
from exequatur.audit.proofs import Proof
from exequatur.lineage.record import Record
from exequatur.statements.verification import Credentials

_LEVELS = ("measured", "attested")


def check_measured(
    decision: Decision,
    proof: Proof,
    found: Sequence[tuple[Record, IntegrityRecord]],
    credentials: Credentials,
    wrong: Wrong,
) -> None:
    """Check what a decision told of the worker.

    Args:
        decision: The record.
        proof: Of the activity that it is about.
        found: What the journals say about what their workers are.
        credentials: Those that came with the history, verified.
        wrong: Told what contradicts.
    """
    try:
        worker = facts_of(decision.claims)[1].get("worker")
    except ValueError:
        return  # said by check_about
    if not isinstance(worker, dict):
        return
    record, level, code = decision.record, worker.get("integrity"), worker.get("code")
    receipt = proof.receipt.claims if proof.receipt is not None else None
    mine = receipt is not None and receipt.log is not None and receipt.log.id == record.log_id
    here = [(each, said) for each, said in found if each.log_id == record.log_id and each.index < record.index]
    last = here[-1][1] if here else None
    if level in _LEVELS and last is None:  # [D13]
        wrong("integrity-unchecked", "the journal does not say that its worker was verified")
    elif level in _LEVELS and last is not None and last.manifest != code:  # [D10]
        wrong("integrity-contradicts", "policies were told of code that its journal does not say was verified")
    completed = receipt is not None and mine and receipt.outcome == "completed"
    if completed and last is not None and last.state == "violated" and last.worker in (None, worker.get("id")):  # [D11]
        wrong("integrity-contradicts", "its worker had recorded before that it is not what its manifest says")
    if proof.receipt is None or not mine:
        return
    held = [each.code for each in credentials.of(proof.receipt.kid, record.at)]
    named = [each for each in held if each is not None]
    vouched = any(each.digest == code and each.assurance == "attested" for each in named)
    if (level == "attested" and not vouched) or (named and all(each.digest != code for each in named)):  # [D12]
        wrong("integrity-contradicts", "policies were told of other code than the worker's credential names")
