"""``exequatur revoke``: end what runs and refuse what comes, everywhere; lift that again; show what is revoked."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from exequatur.audit.wording import moment, shown
from exequatur.cli.feed import Place, with_place
from exequatur.errors import ConfigurationError, RevocationFeedError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.revocation.entry import Revocation
    from exequatur.revocation.feed import Feed

_DENIED = 1


@click.command()
@click.option("--grant", metavar="JTI", help="One grant or permit, by its jti.")
@click.option("--principal", metavar='TYPE::"ID"', help="Whoever this is, and whoever acts for others under this name.")
@click.option("--workflow", metavar="ID", help="One workflow, by its id.")
@click.option("--activity", metavar="TYPE", help="An activity type.")
@click.option("--worker", metavar="SPIFFE-ID", help="One worker: it runs nothing any more.")
@click.option("--key", metavar="KID", help="A key, by its thumbprint, and whatever it has signed.")
@click.option("--code", metavar="DIGEST", help="Workers that run this code.")
@click.option("--bundle", metavar="DIGEST", help="A policy bundle: no worker decides by it.")
@click.option("--all", "everything", is_flag=True, help="The kill switch: everything, everywhere.")
@click.option("--lift", "lifts", type=click.IntRange(min=1), metavar="NUMBER", help="Lift this revocation.")
@click.option("--list", "listed", is_flag=True, help="Show the feed and change nothing.")
@click.option("--reason", metavar="TEXT", help="What those read whose work ends. Needed for all but --list.")
@click.option("--until", metavar="TIME", help="It ends by itself then, e.g. 2026-12-31T18:00:00Z.")
@click.option("--for", "lasting", metavar="DURATION", help="It ends by itself after that, e.g. 30m, 12h or 7d.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")
@with_place
def revoke(
    place: Place,
    everything: bool,
    lifts: int | None,
    listed: bool,
    reason: str | None,
    until: str | None,
    lasting: str | None,
    as_json: bool,
    **named: str | None,
) -> None:
    """Revoke: what matches ends within seconds where it runs, and is refused where it comes.

    What is given together must match together. With --state the entry is written into the folder of an authority whose
    keys you hold; with --authority the service is asked, and its policies decide (revocation.add, revocation.lift).

    \b
      exequatur revoke --principal 'Agent::"ops-bot"' --reason "its token leaked"
      exequatur revoke --activity wire_transfer --for 2h --reason "the bank is closed"
      exequatur revoke --all --reason "incident 512"
      exequatur revoke --list
      exequatur revoke --lift 3 --reason "incident 512 is over"

    Exit codes: 0 done, 1 the authority's policies do not permit it, 2 it could not be done, and nothing was changed
    unless it says so.
    """
    settings = place.settings()
    asked = {name: value for name, value in named.items() if value is not None}
    if listed:
        if asked or everything or lifts or reason or until or lasting:
            raise click.UsageError("--list goes alone")
        _show(_feed(place, settings), as_json)
        return
    if reason is None:
        raise click.UsageError("Say why with --reason")
    from exequatur.revocation.entry import revocation

    if "principal" in asked:
        asked["principal"] = _principal(asked["principal"])
    ends = _until(until, lasting)
    entry = revocation(reason=reason, everything=everything, until=ends, lifts=lifts, at=None, **asked)
    version = _added(place, settings, entry)
    if as_json:
        click.echo(json.dumps({"version": version, **entry.model_dump(exclude_defaults=True)}))
    elif entry.lifts is not None:
        click.echo(f"Lifted: revocation {entry.lifts} (entry {version})")
    else:
        click.echo(f"Revoked: {shown(_what(entry))} (entry {version}){_lasts(entry)}")


def _principal(text: str) -> str:
    from exequatur.identity.principal import Principal

    try:
        return str(Principal.parse(text))
    except ValueError as err:
        raise ConfigurationError(f"--principal: {err}") from err


def _until(until: str | None, lasting: str | None) -> float | None:
    """When it ends, in seconds since 1970.

    Raises:
        ConfigurationError: It is no time, or both were given.
    """
    if until is not None and lasting is not None:
        raise click.UsageError("Give one of --until and --for")
    if lasting is not None:
        from pydantic import TypeAdapter, ValidationError

        from exequatur.settings import Interval

        try:
            return round(time.time() + TypeAdapter(Interval).validate_python(lasting).total_seconds(), 3)
        except ValidationError as err:
            raise ConfigurationError(f"--for {lasting}: {err.errors(include_input=False)[0]['msg']}") from err
    if until is None:
        return None
    try:
        ends = datetime.fromisoformat(until)
    except ValueError:
        ends = None
    if ends is None or ends.tzinfo is None:
        raise ConfigurationError(f"--until {until}: write a time with its zone, e.g. 2026-12-31T18:00:00Z")
    return ends.timestamp()


def _added(place: Place, settings: Any, entry: Revocation) -> int:
    if place.url is not None:
        from exequatur.authority.feed_source import DeniedError

        source, _ = place.service(settings)
        try:
            return source.add(entry.model_dump(exclude_defaults=True, exclude={"at"}))
        except DeniedError as err:
            click.echo(shown(str(err)), err=True)
            raise SystemExit(_DENIED) from None
    revocations, _ = place.own(settings)
    version = revocations.add(entry)
    if revocations.publisher is not None:
        try:
            revocations.publisher.keep()
        except RevocationFeedError as err:
            raise RevocationFeedError(f"It was revoked (entry {version}), but who follows is not told: {err}") from err
    return version


def _feed(place: Place, settings: Any) -> Feed:
    """All entries, which lead to a signed head where they came over a network.

    Raises:
        ExequaturError: They cannot be read or believed.
    """
    from exequatur.revocation.feed import Feed

    if place.url is None:
        revocations, _ = place.own(settings)
        if revocations.problem:
            raise RevocationFeedError(revocations.problem)
        return revocations.feed
    from exequatur.authority.api import TRUST_PATH
    from exequatur.statements.jws import parse
    from exequatur.statements.models import RevocationHead
    from exequatur.statements.trust import TrustStore

    source, connection = place.service(settings)
    page = source.fetch(0, 0.0)
    anchors = TrustStore.from_jwks(connection.ask_now("GET", TRUST_PATH).body, connection.url(TRUST_PATH))
    head = parse(page.head, RevocationHead)
    anchors.verify(head)
    feed = Feed().extended(page.entries)
    if (feed.version, feed.link) != (head.claims.version, head.claims.head):
        raise RevocationFeedError(f"The entries of {source} do not lead to its signed head")
    return feed


def _show(feed: Feed, as_json: bool) -> None:
    now = time.time()
    rows = [
        {"number": number, **entry.model_dump(exclude_defaults=True), "state": _state(feed, number, entry, now)}
        for number, entry in enumerate(feed.entries, 1)
    ]
    if as_json:
        click.echo(json.dumps({"version": feed.version, "link": feed.link, "entries": rows}, indent=2))
        return
    if not rows:
        click.echo("Nothing has been revoked")
    for row, entry in zip(rows, feed.entries, strict=True):
        text = f"{row['number']:>4}  {moment(entry.at)}  {row['state']:<12}  {_what(entry)}: {entry.reason}"
        click.echo(shown(text + _lasts(entry)))


def _state(feed: Feed, number: int, entry: Revocation, now: float) -> str:
    if entry.lifts is not None:
        return "lifts"
    if (lifted := feed.lifted_by(number)) is not None:
        return f"lifted by {lifted}"
    return "in force" if entry.stands(now) else "ended"


def _what(entry: Revocation) -> str:
    if entry.lifts is not None:
        return f"revocation {entry.lifts}"
    return "everything" if entry.everything else ", ".join(f"{name} {value}" for name, value in entry.named.items())


def _lasts(entry: Revocation) -> str:
    if entry.until is None:
        return ""
    try:
        ends = datetime.fromtimestamp(entry.until, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):
        ends = f"{entry.until:.0f} s after 1970"
    return f", until {ends}"
