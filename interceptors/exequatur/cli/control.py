"""``exequatur control``: brings a revocation feed into a Temporal namespace, for workers that follow it there."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import click

from exequatur.audit.wording import shown
from exequatur.cli.feed import Place, with_place
from exequatur.cli.server import Server, with_server


@click.command()
@with_place
@with_server
def control(place: Place, server: Server) -> None:
    """Keep the revocation feed in a namespace, until told to stop.

    It runs the workflow ExequaturControl (id exequatur-control) and its worker. Workers with `revocation_feed =
    "temporal"` follow it: they need nothing but Temporal. They believe only what the authority has signed, so run this
    where its keys are (--state), or let it pass on what a service signs (--authority). Run two for availability.

    Exit codes: 0 it was told to stop, 2 it could not be done, 130 interrupted.
    """
    asyncio.run(_run(place, server))


async def _run(place: Place, server: Server) -> None:
    from exequatur.control.publishing import ControlPublisher

    settings = place.settings()
    every = settings.revocation_freshness.total_seconds() / 3
    aud = f"{settings.trust_domain}/{settings.cluster}"
    if place.url is None:
        own, trust = place.own(settings)
        assert own.publisher is not None  # noqa: S101
        publisher = ControlPublisher(own, own.publisher.page, trust, aud=aud, every=every)
    else:
        from exequatur.authority.following import FollowedAnchors, open_folder
        from exequatur.control.feeds import followed

        source, connection = place.service(settings)
        folder = open_folder(place.state)
        anchors = FollowedAnchors(connection, folder, every=settings.policy_fetch_interval.total_seconds())
        await asyncio.to_thread(anchors.refresh_if_due)
        passed = followed(source, folder, anchors.trust, settings, lambda: None)
        publisher = ControlPublisher(
            passed, passed.page, anchors.trust, aud=aud, every=every, learn=anchors.refresh_if_due
        )
    client = await server.connect()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, stop.set)
    await publisher.run(client, stop=stop, said=lambda text: click.echo(shown(text)))
