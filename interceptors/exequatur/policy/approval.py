"""What would satisfy a policy that asks for people: ``@approval("finance, 2, 24h")``."""

import datetime
import re
from dataclasses import dataclass

#: More people than this never have to agree; a larger number is a typing error.
MAX_QUORUM = 1000
#: Approvals older than this are forgotten ones.
MAX_TTL = datetime.timedelta(days=3650)

_GROUP = re.compile(r"[^\s,\"\\](?:[^,\"\\\n\r]{0,198}[^\s,\"\\])?")
_QUORUM = re.compile(r"[0-9]{1,6}", re.ASCII)
_TTL = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_FORM = 'write it as "group, number of people, time", for example "finance, 2, 24h"'


@dataclass(frozen=True, slots=True)
class Approval:
    """Who has to agree, how many of them, and for how long it counts.

    Args:
        group: The group that approvers belong to.
        quorum: How many different people.
        ttl: How long an approval counts.
    """

    group: str
    quorum: int
    ttl: datetime.timedelta

    def __str__(self) -> str:
        people = "1 person" if self.quorum == 1 else f"{self.quorum} people"
        return f"{people} of {self.group}, not longer ago than {_span(self.ttl)}"


def parse_approval(text: str) -> Approval:
    """Read the text of an ``@approval``.

    Args:
        text: ``group, quorum, ttl``; the time is a number with s, m, h or d.

    Raises:
        ValueError: It has another form, or numbers that cannot be meant; a predicate says what is wrong.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 3:
        raise ValueError(f"has {len(parts)} parts instead of 3; {_FORM}")
    group, quorum, ttl = parts
    if _GROUP.fullmatch(group) is None:
        raise ValueError(f"names no group; {_FORM}")
    if _QUORUM.fullmatch(quorum) is None or not 1 <= int(quorum) <= MAX_QUORUM:
        raise ValueError(f"asks for {quorum[:20] or 'no'} people; write a number from 1 to {MAX_QUORUM}")
    match = _TTL.fullmatch(ttl)
    if match is None:
        raise ValueError(f'has {ttl[:20]!r} where a time must stand; write for example "30m", "24h" or "7d"')
    try:
        span = datetime.timedelta(**{_UNITS[match.group(2)]: int(match.group(1))})
    except OverflowError:
        span = MAX_TTL * 2
    if span > MAX_TTL:
        raise ValueError(f"counts for {ttl}; write at most {MAX_TTL.days}d")
    return Approval(group, int(quorum), span)


def _span(ttl: datetime.timedelta) -> str:
    whole = int(ttl.total_seconds())
    for letter, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if whole % size == 0:
            return f"{whole // size}{letter}"
    return f"{whole}s"
