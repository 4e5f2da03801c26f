"""``exequatur policy shadow``: where candidate policies disagreed with those in force."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import click

from exequatur.audit.wording import count, shown
from exequatur.errors import EvidenceError

_DIGEST = re.compile(r"[A-Za-z0-9_-]{43}")
_NAMED = 10
"""Candidates that a message names."""
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
    known: set[str] = set()
    for source in sources:
        for record in Evidence(source).records("shadow"):
            key = _key(record.body)
            if len(known) < _MOST:
                known.add(key[0])
            if candidate in (None, key[0]):
                found[key if key in found or len(found) < _MOST else ("", "", "", "others")] += 1
    if candidate is not None and candidate not in known:
        some = ", ".join(sorted(known)[:_NAMED]) + (", …" if len(known) > _NAMED else "")
        said = f"no disagreement of {candidate[:60]} is recorded; there are those of {some or 'no candidate'}"
        if _DIGEST.fullmatch(candidate) is None:
            raise EvidenceError(f"--candidate: {said}")
        click.echo(shown(said), err=True)  # A candidate may well agree with everything.
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
