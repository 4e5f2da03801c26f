"""What is wrong, why, and what to do about it, in order of weight: first what fails closed now.

A worker that can authorize nothing takes no work; who waits for it waits. That is what it should do, and a person
should know.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, Literal

from exequatur.audit.wording import count
from exequatur.console.probes import Service
from exequatur.console.workers import Reports, WorkerHealth
from exequatur.doctor.causes import step_for

Severity = Literal["violation", "unchecked", "notice"]
"""``violation``: something fails closed now. ``unchecked``: it soon will, or nobody can tell."""

_SOON = 30.0
"""Seconds; a credential is renewed when half of its life is over."""
_A_DAY = 24 * 3600.0
_MISSED = 3600.0
"""Seconds for which the queues of a worker that ended are missed."""
_MOST_FILES = 20
_MOST_NAMED = 20
_MOST_PLACES = 20
"""Task queues of one worker that are missed."""
_LATE = 15.0
"""Seconds after which evidence that is followed should have been looked at again."""

_CLOSED = {
    "violated": ("A worker is not what its manifest says", "{} workers are not what their manifests say"),
    "revoked": ("A worker is revoked", "{} workers are revoked"),
    "unavailable": ("A worker can authorize nothing", "{} workers can authorize nothing"),
}
_LOST = {
    "worker-ended": "It did not take its report away: it was killed, or it crashed.",
    "worker-replaced": "It did not take its report away: it was killed, or it crashed.",
    "worker-silent": "It writes a report every ten seconds, and none of the last thirty has come.",
    "worker-clock": "It reports from the future, so nobody can tell whether it still runs.",
}
_ENDED = "Start it again, and see its log. If it was meant to end, remove its file in the folder in-force."
_REPLACED = "See its log, and remove its file in the folder in-force."
_STOPPED = "See whether it runs, its clock is right, and its state folder can be written."
_AHEAD = "Synchronize its clock and that of this machine (NTP); it is believed again by itself."
_SERVICES = {
    "authority": ("The authority does not answer as it should", "The authority needs a look"),
    "state": ("The state folder cannot be used as it is", "The state folder needs a look"),
    "store": ("The evidence store does not answer", "The evidence store needs a look"),
    "shared-state": ("The shared database does not answer", "The shared database needs a look"),
    "temporal": ("The Temporal server does not answer as it should", "The Temporal server needs a look"),
}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong.

    Args:
        kind: What, by a name that does not change.
        severity: How much it matters now.
        headline: The same in words of this code, which name nobody.
        text: What was found, and why.
        advice: What to do next.
        about: Workers or services that it is about.
        since: Since when, in seconds since 1970, if that is known.
    """

    kind: str
    severity: Severity
    headline: str
    text: str
    advice: str
    about: tuple[str, ...] = ()
    since: float | None = None


@dataclass(frozen=True, slots=True)
class Authority:
    """What the authority of this state folder knows, as the console has it in memory.

    Args:
        ended: Why its policies may not decide.
        doubt: Why it is not known what is revoked.
        ended_at: Since when its policies may not decide, if that is known.
        known_at: When it was last known what is revoked.
        stopped: When everything was revoked, by which entry, and why.
        revocations: Version of its feed.
        digest: Of its policies.
        freshness: Seconds after which a worker's feed is too old.
    """

    ended: str | None
    doubt: str | None
    stopped: tuple[float, int, str] | None
    revocations: int
    digest: str
    freshness: float
    ended_at: float | None = None
    known_at: float | None = None


def problems_of(
    workers: Sequence[WorkerHealth],
    reports: Reports,
    services: Sequence[Service],
    authority: Authority,
    evidence: Mapping[str, Any],
    now: float,
) -> list[Problem]:
    """All that is wrong.

    Args:
        workers: As they report.
        reports: What they were read from.
        services: What the workers stand on.
        authority: What the console's own authority knows.
        evidence: ``facts()`` of the console's decisions.
        now: Seconds since 1970.
    """
    found = [
        *_authority(authority),
        *_closed(workers),
        *_unserved(workers, now),
        *_lost(workers, now),
        *_services(services),
    ]
    found += [*_ending(workers, now), *_behind(workers, authority, now), *_evidence(workers, evidence, now)]
    found += [*_files(reports), *_nobody(workers, reports)]
    weights = ("violation", "unchecked", "notice")
    return sorted(found, key=lambda each: weights.index(each.severity))


def _authority(authority: Authority) -> Iterator[Problem]:
    if authority.stopped is not None:
        at, number, reason = authority.stopped
        yield Problem(
            "everything-revoked",
            "violation",
            "Everything is revoked",
            f"Entry {number} of the feed stops all that runs and starts: {reason}",
            f"If that is over: exequatur revoke --lift {number} --reason ..., or on the page Governance.",
            since=at,
        )
    if authority.ended is not None:
        step = step_for(authority.ended)
        headline = "The authority's policies may not decide"
        yield Problem("policies", "violation", headline, _sentence(authority.ended), step, since=authority.ended_at)
    if authority.doubt is not None:
        text = f"It is not known what is revoked: {authority.doubt}"
        step = step_for("it is not known what is revoked")
        headline = "The revocation feed cannot be read"
        yield Problem("feed", "violation", headline, _sentence(text), step, since=authority.known_at)


def _closed(workers: Sequence[WorkerHealth]) -> Iterator[Problem]:
    """Workers that take no work, alike ones together."""
    groups: dict[tuple[str, str], list[WorkerHealth]] = {}
    for each in workers:
        if each.state in _CLOSED:
            groups.setdefault((each.state, each.why or ""), []).append(each)
    for (state, why), alike in groups.items():
        headline = _CLOSED[state][len(alike) > 1].format(len(alike))
        yield Problem(
            f"worker-{state}", "violation", headline, _sentence(why), step_for(why), _names(alike), _first(alike)
        )


def _unserved(workers: Sequence[WorkerHealth], now: float) -> Iterator[Problem]:
    """Task queues on which nobody can authorize."""
    missed = [each for each in workers if each.state != "ended" or now - each.at < _MISSED]
    served: dict[tuple[str, str], list[WorkerHealth]] = {}
    for each in missed:
        for place in _places(each):
            served.setdefault(place, []).append(each)
    left = [place for place, of_it in served.items() if all(each.state != "ready" for each in of_it)]
    if left:
        gone = [[each.since for each in served[place]] for place in left]
        known = [max(at for at in of_it if at is not None) for of_it in gone if any(at is not None for at in of_it)]
        shown = ", ".join(f"{queue} ({namespace})" for namespace, queue in left[:_MOST_NAMED])
        more = f" and {len(left) - _MOST_NAMED} more" if len(left) > _MOST_NAMED else ""
        yield Problem(
            "queue-unserved",
            "violation",
            "Nobody can authorize on a task queue" if len(left) == 1 else f"Nobody can authorize on {len(left)} queues",
            f"{shown}{more}: activities wait there until a worker can authorize.",
            "Remove what stops its workers, or start another one.",
            _names(list({each.worker: each for place in left for each in served[place]}.values())),
            min(known, default=None),
        )


def _lost(workers: Sequence[WorkerHealth], now: float) -> Iterator[Problem]:
    """Workers of which nothing is heard any more."""
    served = {place for each in workers if each.state == "ready" for place in _places(each)}
    ended = [each for each in workers if each.state == "ended"]
    replaced = [each for each in ended if served.issuperset(_places(each))]
    silent = [each for each in workers if each.state == "silent"]
    lost: tuple[tuple[list[WorkerHealth], str, Severity, str, str], ...] = (
        ([each for each in ended if each not in replaced], "worker-ended", "unchecked", "ended without a word", _ENDED),
        ([each for each in silent if each.at <= now], "worker-silent", "unchecked", "stopped reporting", _STOPPED),
        ([each for each in silent if each.at > now], "worker-clock", "unchecked", "has a clock that is ahead", _AHEAD),
        (replaced, "worker-replaced", "notice", "ended without a word, and others serve its queues", _REPLACED),
    )
    for those, kind, severity, what, advice in lost:
        if those:
            subject = "A worker" if len(those) == 1 else f"{len(those)} workers"
            text = _LOST[kind]
            yield Problem(kind, severity, f"{subject} {what}", text, advice, _names(those), _first(those))


def _places(worker: WorkerHealth) -> set[tuple[str, str]]:
    return set(islice(product(worker.namespaces, worker.queues), _MOST_PLACES))


def _services(services: Sequence[Service]) -> Iterator[Problem]:
    for each in services:
        if each.state in ("down", "warning"):
            down = each.state == "down"
            severity: Severity = "violation" if down else "notice"
            headline = _SERVICES[each.service][0 if down else 1]
            yield Problem(
                f"{each.service}-{each.state}",
                severity,
                headline,
                _sentence(each.text),
                each.advice,
                (each.where,),
                each.since,
            )


def _ending(workers: Sequence[WorkerHealth], now: float) -> Iterator[Problem]:
    """Credentials and releases that end, of workers that can still authorize."""
    ready = [each for each in workers if each.state == "ready"]
    credentials = [each for each in ready if each.credential_expires is not None]
    if soon := [each for each in credentials if (each.credential_expires or 0.0) - now < _SOON]:
        text = f"{count(len(soon), 'worker has', 'workers have')} not renewed a credential that is about to end."
        step = step_for("this worker's credential has ended")
        yield Problem("credential-ending", "unchecked", "A credential is about to end", text, step, _names(soon))
    if soon := [each for each in ready if each.expires is not None and each.expires - now < _A_DAY]:
        text = f"The release in force ends within a day on {count(len(soon), 'worker', 'workers')}."
        step = "Sign the bundle again soon: exequatur policy sign, then push."
        yield Problem("release-ending", "unchecked", "A release is about to end", text, step, _names(soon))
    for why, alike in _alike((each, each.refused) for each in ready):
        text = f"The policies before stay in force. {_sentence(why)}"
        step = "Correct the policies, or release them again; the workers look by themselves."
        yield Problem("bundle-refused", "unchecked", "Changed policies were refused", text, step, _names(alike))
    if unknown := [each for each in ready if each.integrity == "unknown"]:
        text = "It is not known whether it is what its manifest says."
        step = step_for("it is not known whether this worker is")
        yield Problem("integrity-unknown", "unchecked", "A worker is not measured", text, step, _names(unknown))


def _behind(workers: Sequence[WorkerHealth], authority: Authority, now: float) -> Iterator[Problem]:
    """Feeds that are old or lack an entry, and bundles that differ."""
    ready = [each for each in workers if each.state == "ready"]
    # A report may have been written just before the entry was.
    told = [each for each in ready if now - each.at < authority.freshness]
    if behind := [each for each in told if each.revocations < authority.revocations]:
        text = f"The feed has version {authority.revocations}; {count(len(behind), 'worker has', 'workers have')} less."
        step = "Look again in a few seconds; if it stays so, see which feed it follows."
        yield Problem("feed-behind", "unchecked", "A worker lacks a revocation", text, step, _names(behind))
    if len({each.digest for each in ready if each.channel == "stable"}) > 1:
        text = "While a release spreads that is usual; it should not last."
        step = "Look again in a minute; if it stays so, see the logs of those that refused it."
        yield Problem("bundles-differ", "notice", "Workers have different policies in force", text, step)


def _evidence(workers: Sequence[WorkerHealth], evidence: Mapping[str, Any], now: float) -> Iterator[Problem]:
    looked = evidence.get("looked")
    if looked and now - looked > _LATE:
        text = "One of the journals or stores does not answer; what was decided since then is not shown here."
        step = "See whether its disk or server answers; it is read again by itself."
        yield Problem("evidence-late", "unchecked", "Evidence is not followed in time", text, step, since=looked)
    for name, why in list(evidence.get("problems", {}).items())[:_MOST_FILES]:
        step = "See that it is there and can be read by the console's user; it is tried again."
        yield Problem("evidence", "unchecked", "Evidence cannot be followed", _sentence(why), step, (name,))
    for why, alike in _alike((each, each.unshipped) for each in workers):
        step = "The journals keep it and it is shipped later; see the store."
        yield Problem("unshipped", "unchecked", "Evidence is not shipped", _sentence(why), step, _names(alike))


def _files(reports: Reports) -> Iterator[Problem]:
    if reports.unread is not None:
        text = f"{_sentence(reports.unread)} What is shown of workers may be old."
        step = "See whether its disk answers, and run the console as a user who may read it."
        yield Problem("reports-unread", "unchecked", "The workers' reports cannot be read", text, step)
    if files := reports.problems:
        text = " ".join(files[:3]) + (f" And {len(files) - 3} more." if len(files) > 3 else "")
        step = "Remove what is no report; a running worker writes its own again."
        yield Problem("reports", "unchecked", "There are files that are no worker's report", text, step)


def _nobody(workers: Sequence[WorkerHealth], reports: Reports) -> Iterator[Problem]:
    if not workers and reports.unread is None:
        text = "No worker of this state folder has reported here."
        step = "Start one with this state folder, or name its folder with --state."
        yield Problem("no-workers", "notice", "No worker reports", text, step)


def _alike(told: Iterable[tuple[WorkerHealth, str | None]]) -> Iterator[tuple[str, list[WorkerHealth]]]:
    """Workers that say the same, together."""
    groups: dict[str, list[WorkerHealth]] = {}
    for worker, text in told:
        if text is not None:
            groups.setdefault(text, []).append(worker)
    yield from groups.items()


def _names(workers: Sequence[WorkerHealth]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.worker for each in workers))[:_MOST_NAMED]


def _first(workers: Sequence[WorkerHealth]) -> float | None:
    return min((each.since for each in workers if each.since is not None), default=None)


def _sentence(text: str) -> str:
    """A clause as a sentence; it may begin with a path or an address."""
    if not text:
        return text
    first = text[:1].upper() if text.split(maxsplit=1)[0].isalpha() else text[:1]
    return f"{first}{text[1:]}{'' if text[-1] in '.!?' else '.'}"
