"""What is used once: a grant by one execution, a permit, a challenge, a request.

With shared state that holds among all hosts; the journal remembers it besides, so that it also holds where the shared
state is added or taken away later. The ledger is asked first: what it refuses must leave no mark in the journal.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from exequatur.errors import RepeatedRequestError, ReplayedRequestError
from exequatur.statements.verification import Chain

if TYPE_CHECKING:
    from exequatur.gate.attempt import Attempt
    from exequatur.gate.gate import Gate


async def pinned(gate: Gate, name: str, holder: str) -> bool:
    """Whether a name is held by who asks, now or before.

    Args:
        gate: Whose shared state and journal.
        name: What serves one.
        holder: Who asks.

    Raises:
        JournalError: It cannot be remembered.
    """
    counting = gate.counting
    if counting is not None and counting.shared and not await counting.pin(name, holder):
        return False
    return await gate.require_journal().pin(name, holder)


async def serves(gate: Gate, chain: Chain, first_run_id: str) -> bool:
    """Whether a chain is used by the execution that used it first.

    Args:
        gate: Where that is remembered.
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
        if not await pinned(gate, before.digest, first):
            return False
    return await pinned(gate, chain.leaf.digest, first_run_id)


async def used_once(attempt: Attempt, request: str) -> None:
    """F4 among all hosts; within one the journal knows it.

    Args:
        attempt: Verified.
        request: What stands for its request.

    Raises:
        JournalError: It cannot be remembered.
        RepeatedRequestError: It was used for an attempt of this number that was scheduled at another time.
        ReplayedRequestError: It was used for this very attempt.
    """
    counting = attempt.gate.counting
    if counting is None or not counting.shared:
        return
    moment = "" if attempt.info.is_local else f"{attempt.scheduled['scheduled']:.6f}"
    place = f"request {request} {attempt.run_id} {attempt.info.attempt}"
    if not await counting.pin(place, moment) and not attempt.reset:
        raise RepeatedRequestError("the request was already used for an attempt of this number on another host")
    if not await counting.pin(f"{place} {moment}", attempt.use):
        raise ReplayedRequestError("the request was already used for this attempt on another host")
