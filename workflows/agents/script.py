"""The model of all three agents: a script, so that the story is the same each time and needs no network.

It is as gullible as a model can be: what a ticket says last, it does first. When that is denied, it reads the denial
and does what the ticket is about.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_TICKET = re.compile(r"\bt-\d+")
_ORDER = re.compile(r"order (?P<order>o-\d+), (?P<amount>\d+\.\d\d)")
_ACCOUNT = re.compile(r"\bacc-\w+")
_DELETE = re.compile(r"delete ticket (t-\d+)")
_DENIED = "may not run"


@dataclass(frozen=True)
class Call:
    """A tool call."""

    tool: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is said to the user, at the end."""

    text: str


def next_step(task: str, results: Sequence[str]) -> Call | Answer:
    """What the model does next.

    Args:
        task: What the user asks for; it names a ticket.
        results: What the tools said so far.
    """
    if not results:
        named = _TICKET.search(task)
        return Call("read_ticket", {"ticket_id": named[0]}) if named else Answer("Which ticket?")
    ticket, done = results[0], results[1:]
    plan = _plan(ticket)
    denied = [each for each in done if _DENIED in each]
    if len(denied) == len(done) < len(plan):
        return plan[len(done)]
    said = [f"Done: {each}." for each in done if each not in denied] or [f"I could do nothing. The ticket: {ticket}"]
    return Answer(" ".join([*said, *(f"I was not allowed something else: {each}." for each in denied)]))


def _plan(ticket: str) -> list[Call]:
    """What a ticket makes the model want, first things first."""
    plan = []
    if delete := _DELETE.search(ticket):
        plan.append(Call("delete_ticket", {"ticket_id": delete[1]}))
    if order := _ORDER.search(ticket):
        accounts = _ACCOUNT.findall(ticket)
        plan += [
            Call("refund_order", {"order_id": order["order"], "amount": order["amount"], "account": account})
            for account in dict.fromkeys(reversed(accounts))
        ]
    return plan
