"""Which execution a grant serves: the first that shows it to this journal, and no other."""

from __future__ import annotations

from exequatur.lineage.journal import Journal
from exequatur.statements.verification import Chain


async def serves(journal: Journal, chain: Chain, first_run_id: str) -> bool:
    """Whether a chain is used by the execution that used it first.

    Args:
        journal: Where that is remembered.
        chain: Verified.
        first_run_id: First execution run id of who shows it.

    Raises:
        JournalError: It cannot be remembered.
    """
    if chain.authorization.reuse == "schedule":
        return True
    # Another execution of a run that started this one would else act through its children.
    for before, handed in chain.handovers:
        first = handed.claims.parent_first_run_id
        if first is None or before.claims.authorization.reuse == "schedule":
            continue
        if not await journal.pin(before.digest, first):
            return False
    return await journal.pin(chain.leaf.digest, first_run_id)
