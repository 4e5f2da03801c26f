"""What the plugins of a test decided lately, from their evidence journals."""

from __future__ import annotations

import json
from pathlib import Path

from exequatur.errors import JournalError
from exequatur.lineage.record import Record, read
from exequatur.testing.plugins import journal_of, tested_plugins

_MOST = 10
"""How many decisions a message holds."""


def decided_since(moment: float) -> list[str]:
    """Say what was decided about activities, one sentence a decision.

    Args:
        moment: Seconds since 1970, by the machine's clock.

    Returns:
        The last decisions, oldest first; empty where nothing is recorded.
    """
    records = [
        record
        for plugin in tested_plugins()
        for file in sorted(journal_of(plugin).glob("*.db"))
        for record in _records(file)
        if record.kind == "decision" and record.at >= moment
    ]
    records.sort(key=lambda record: record.at)
    return [_sentence(record) for record in records[-_MOST:]]


def _records(file: Path) -> list[Record]:
    try:
        return list(read(file))
    except JournalError:  # a message about a failed test must not fail
        return []


def _sentence(record: Record) -> str:
    decision = json.loads(record.body)
    policies = ", ".join(decision["policies"])
    by = f" by {policies}" if policies else ""
    said = {"allow": "allowed", "deny": "denied", "none": "rejected"}[decision["decision"]]
    # The policies say it shorter, and the failure says it in full.
    reason = f": {decision['reason']}" if decision["reason"] and not policies else ""
    observed = "" if decision["enforced"] else " (not enforced)"
    return f"{decision['activity_type']} for {decision['principal'] or 'nobody'} was {said}{by}{observed}{reason}"
