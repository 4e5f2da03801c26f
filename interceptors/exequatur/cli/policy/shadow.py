"""``exequatur policy shadow``: where candidate policies disagreed with those in force."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import EvidenceError

_MOST = 10_000
"""Combinations that are told apart; more are counted together."""


@click.command()
@click.option(
    "--evidence",
    "sources",
    multiple=True,
    required=True,
    metavar="PATH_OR_URL",
    help="A state or journal folder, exported evidence, or a store. Repeat it for more.",
)
@click.option("--candidate", metavar="DIGEST", help="Only the disagreements of this bundle.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
def shadow(sources: tuple[str, ...], candidate: str | None, as_json: bool) -> None:
    """Count the disagreements of candidate policies (shadow_policies), by candidate, direction, activity and policy.

    Exit codes: 0 there are none, 1 there are some, 2 could not be read.
    """
    from exequatur.audit.records import Evidence

    found: Counter[tuple[str, str, str, str]] = Counter()
    for source in sources:
        for record in Evidence(source).records("shadow"):
            key = _key(record.body)
            if candidate in (None, key[0]):
                found[key if key in found or len(found) < _MOST else ("", "", "", "others")] += 1
    rows = [
        {"candidate": key[0], "direction": key[1], "activity": key[2], "policies": key[3], "count": number}
        for key, number in found.most_common()
    ]
    if as_json:
        click.echo(json.dumps({"disagreements": rows}, indent=2))
    else:
        click.echo(count(found.total(), "disagreement"))
        for row in rows:
            texts = (shown(str(row[name]), 200) for name in ("direction", "activity", "policies", "candidate"))
            click.echo("\t".join((f"{row['count']:,}", *texts)))
    click.get_current_context().exit(1 if rows else 0)


COMMANDS = (shadow,)


def _key(body: bytes) -> tuple[str, str, str, str]:
    """Candidate, direction, activity type and the policies that the candidate names.

    Raises:
        EvidenceError: It is no record of a disagreement.
    """
    from exequatur.statements.encoding import strict_json

    try:
        claims: Any = strict_json(body)
        named = claims["policies"] if claims["decision"] == "deny" else claims["enforced"]["policies"]
        policies = ", ".join(map(str, named or claims["policies"])) or "no policy"
        return str(claims["bundle"]), f"would {claims['decision']}", str(claims["activity_type"]), policies
    except (ValueError, KeyError, TypeError, IndexError):
        raise EvidenceError(
            "A record of a disagreement cannot be read: it was edited or is of a later version"
        ) from None
