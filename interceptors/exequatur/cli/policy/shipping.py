"""``exequatur policy push``, ``pull``, ``withdraw`` and ``status``: bundles on their way to workers."""

from __future__ import annotations

import json
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from exequatur.audit.wording import count, shown
from exequatur.cli.policy.bundle import AS_JSON, BUNDLE, FILE, NAME, writable
from exequatur.errors import PolicyError

if TYPE_CHECKING:  # at run time when a command runs, so that --help is quick
    from exequatur.policy.offer import Channel, Provenance
    from exequatur.statements.trust import TrustStore

_WHERE = click.argument("where", metavar="WHERE")


@click.command()
@BUNDLE
@_WHERE
@click.option("--keys", type=FILE, help="Verify it first with this JWK set of policy keys.")
def push(bundle: Path, where: str, keys: Path | None) -> None:
    """Put a bundle where workers look: never over a newer one, and whole or not at all.

    WHERE is a folder, the path of a bundle file, its http(s) URL (the server must take PUT), or an evidence store
    (postgresql://USER@HOST/DATABASE, or store:FILE for SQLite). A canary release goes beside the stable one.
    """
    from exequatur.release.directory import read_file
    from exequatur.release.file import BundleFile
    from exequatur.release.keys import read_policy_keys
    from exequatur.release.places import place_of
    from exequatur.release.pushing import check_push, newest_release
    from exequatur.release.verify import channel_of

    data = read_file(bundle)
    file = BundleFile.read(data, str(bundle))
    name = file.open(str(bundle)).manifest.name
    release = newest_release(file)
    channel = "stable" if release is None else channel_of(release)
    sequence = None if release is None else release.sequence
    if keys is not None:
        verified = _verified(data, str(bundle), read_policy_keys(keys), name, channel)
        channel, sequence = verified.channel, verified.sequence
    changed = True
    with closing(place_of(where, name, create=True)) as place:

        def check(there: bytes | None) -> None:
            nonlocal changed
            changed = check_push(file, there, channel, str(place))

        place.write(channel, data, check)
        what = "not signed" if sequence is None else f"{channel} release {sequence}"
        click.echo(f"{shown(str(place))}: {name}, {what}{'' if changed else ', was there already'}")


@click.command()
@_WHERE
@click.option("-o", "--output", type=FILE, help="The file to write; NAME.bundle if left out.")
@click.option("--keys", type=FILE, help="The JWK set of the policy keys that you trust.")
@click.option("--unverified", is_flag=True, help="Write it without verifying it.")
@click.option("--canary", is_flag=True, help="The canary instead of the stable bundle.")
@NAME
def pull(where: str, output: Path | None, keys: Path | None, unverified: bool, canary: bool, name: str) -> None:
    """Fetch a bundle, and write it if it verifies.

    WHERE is as for push. A transfer that breaks is taken up where it broke.
    """
    from exequatur.files import PUBLIC, write_whole
    from exequatur.release.file import BundleFile
    from exequatur.release.keys import read_policy_keys
    from exequatur.release.places import found, place_of
    from exequatur.release.signing import verify_bundle

    if (keys is None) is not unverified:
        raise click.UsageError("Give --keys to verify the bundle, or --unverified")
    path = writable(output or Path(f"{name}.bundle"))
    channel: Channel = "canary" if canary else "stable"
    trust = None if keys is None else read_policy_keys(keys)
    with closing(place_of(where, name)) as place:
        place.look()
        data = found(place, channel)
        source = shown(str(place))
    if trust is None:
        BundleFile.read(data, source).open(source)
    else:
        verify_bundle(data, source, trust, follows=name, channel=channel, now=time.time())
    write_whole(path, data, PUBLIC)
    click.echo(f"{path}: {count(len(data), 'byte')} from {source}, {'not verified' if unverified else 'verified'}")


@click.command()
@_WHERE
@NAME
def withdraw(where: str, name: str) -> None:
    """Take a canary away; the workers that follow it go back to the stable bundle.

    WHERE is as for push. Whoever can write there could put the canary back. A stable release that is newer than the
    canary ends it for good.
    """
    from exequatur.release.places import place_of

    with closing(place_of(where, name)) as place:
        place.look()
        there = place.withdraw("canary")
        if not there and place.read("stable") is None:
            raise PolicyError(f"{place} holds no bundle at all; name the place, and the --name, that it was pushed to")
        click.echo(f"{shown(str(place))}: {'the canary is withdrawn' if there else 'there is no canary'}")


@click.command()
@click.option(
    "--state-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(".exequatur"),
    show_default=True,
    help="The workers' state folder.",
)
@AS_JSON
def status(state_dir: Path, as_json: bool) -> None:
    """Show which policies are in force in the workers that use a state folder."""
    from exequatur.release.report import read_reports

    reports, problems = read_reports(state_dir)
    for problem in problems:
        click.echo(f"Warning: {shown(problem)}", err=True)
    if as_json:
        click.echo(json.dumps([report.model_dump(exclude_none=True) for report in reports], indent=2))
        return
    if not reports:
        raise PolicyError(f"{state_dir}: no worker that runs has said what is in force; start one, or name its folder")
    for report in reports:
        what = "folder, not signed" if report.name is None else f"{shown(report.name)} {shown(report.version or '')}"
        if report.sequence is not None:
            what = f"{what}, {report.channel} release {report.sequence}"
        elif report.name is not None:
            what = f"{what}, not verified"
        until = ""
        if report.expires is not None:
            ended = report.expires <= time.time()
            until = f"\t{'ENDED, takes no work since' if ended else 'until'} {_utc(report.expires)}"
        click.echo(
            f"{shown(report.host)} {report.pid}\t{shown(report.digest)}\t{what}\tsince {_utc(report.since)}{until}"
        )


def _utc(at: float) -> str:
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return "unknown"


def _verified(data: bytes, source: str, trust: TrustStore, name: str, newest: Channel) -> Provenance:
    """The newest release by a trusted key, on whichever channel.

    Raises:
        PolicyError: There is none; why it is not the one on the channel ``newest``.
    """
    from exequatur.release.places import CHANNELS
    from exequatur.release.signing import verify_bundle

    held: list[Provenance] = []
    problems: dict[Channel, PolicyError] = {}
    for channel in CHANNELS:
        try:
            held.append(verify_bundle(data, source, trust, follows=name, channel=channel, now=time.time())[1])
        except PolicyError as error:
            problems[channel] = error
    if not held:
        raise problems[newest]
    return max(held, key=lambda each: each.sequence or 0)


COMMANDS = (push, pull, withdraw, status)
