"""The authority service: whether it answers, can decide, tells the same time and has the keys that others trust."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from exequatur.authority.api import READY_PATH, TRUST_PATH
from exequatur.doctor.deployment import Deployment
from exequatur.doctor.finding import Finding, fine, problem, warning
from exequatur.doctor.folders import read_anchors
from exequatur.doctor.server import clock_finding
from exequatur.errors import ConfigurationError
from exequatur.statements.trust import TrustStore

if TYPE_CHECKING:
    from exequatur.authority.connection import Answer


def examine_authority(deployment: Deployment, url: str) -> Iterator[Finding]:
    """Look at an authority service; asks only for what anybody may know."""
    try:
        from exequatur.authority.connection import Connection, UnreachableError
    except ModuleNotFoundError as error:
        yield warning("authority", f"{error.name} is not installed", "Run: pip install 'exequatur[identity]'")
        return
    timeout = deployment.settings.authority_timeout.total_seconds()
    ca = str(deployment.authority_ca) if deployment.authority_ca else deployment.settings.authority_ca
    try:
        connection = Connection(url, timeout=timeout, ca=ca)
        before = deployment.clock()
        ready = connection.ask_now("GET", READY_PATH)
        after = deployment.clock()
        trust = connection.ask_now("GET", TRUST_PATH)
    except ConfigurationError as error:
        text, _, step = str(error).partition("; ")
        yield problem("authority", text, f"{step[:1].upper()}{step[1:]}.")
        return
    except UnreachableError as error:
        yield problem("authority", str(error), "Start it, or check the URL, the network and --authority-ca.")
        return
    if ready.status == 200:
        yield fine("authority", f"{url} is ready")
    else:
        yield problem("authority", f"{url} is not ready: {_said(ready)}", "Its log says what it waits for.")
    yield _clock(ready, before, after, deployment)
    yield from _anchors(trust, url, deployment)


def _clock(answer: Answer, before: float, after: float, deployment: Deployment) -> Finding:
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return warning("clock", "the authority does not tell its time", "Compare the clocks by hand.")
    # The header has whole seconds: the second that it names may be nearly over.
    return clock_finding("the authority", before, min(max(there, before), there + 1), after, deployment.settings)


def _anchors(answer: Answer, url: str, deployment: Deployment) -> Iterator[Finding]:
    try:
        if answer.status != 200:
            raise ConfigurationError(f"{url}{TRUST_PATH} answers {answer.status} and no set of keys")
        trust = TrustStore.from_jwks(answer.body, f"{url}{TRUST_PATH}")
    except ConfigurationError as error:
        yield problem("anchors", str(error), "Check that the URL is that of an Exequatur authority.")
        return
    theirs = {anchor.kid for anchor in trust}
    yield fine("anchors", f"the authority publishes {len(theirs)} keys")
    for path in deployment.states:
        known = read_anchors(path)
        if known is None:
            continue
        foreign = [anchor for anchor in known if anchor.kid not in theirs]
        missing = theirs - {anchor.kid for anchor in known}
        if foreign:
            text = f"{path} trusts key {foreign[0].kid} ({foreign[0].typ[0]}), which the authority does not publish"
            yield problem("anchors", text, "Find out whose key it is; give each authority a state folder of its own.")
        elif missing:
            text = f"{path} does not trust {len(missing)} of the authority's keys yet"
            yield warning("anchors", text, "A running worker learns them by itself; if not, check that it reaches it.")
        else:
            yield fine("anchors", f"{path} trusts what the authority publishes")


def _said(answer: Answer) -> str:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        return f"it answers {answer.status}"
    told = document.get("error_description") if isinstance(document, dict) else None
    return f"{answer.status}, {str(told)[:300]}" if told else f"it answers {answer.status}"
