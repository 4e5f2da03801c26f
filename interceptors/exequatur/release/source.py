"""The bundle that a worker follows: fetched, verified, parsed, and offered to be put in force.

With policy keys, nothing is offered that is not verified (J1 to J8 of :mod:`exequatur.release.verify`), and none of it
is parsed before its signature was. Rules, numbered as the code marks them:

J31  A canary that does not verify, parse or fit never keeps the stable bundle from being offered, and never replaces
     what is in force. One that has ended, or whose key is no longer trusted, makes way for the stable bundle.
J32  What is adopted from a server or a database is kept on disk. A worker that starts while the place is away, or holds
     something that is bad or does not fit, starts with that; it is verified again like any other file.
J33  The policy keys are read each time, so that a key that was taken out of the file releases nothing more.
J34  Who follows a canary adopts the stable bundle beside it, too: an older one does not come back after it (J6).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.offer import Channel, Fits, Offer, Provenance, anything
from exequatur.release.directory import FilePlace
from exequatur.release.file import BundleFile, Contents
from exequatur.release.keys import read_policy_keys
from exequatur.release.marks import Marks
from exequatur.release.places import CHANNELS, Place, found
from exequatur.release.verify import check_order, in_share, open_released, provenance_of, verify
from exequatur.statements.jws import Token
from exequatur.statements.models import Release
from exequatur.statements.trust import TrustStore

logger = logging.getLogger("exequatur")


@dataclass(frozen=True)
class _Candidate:
    """A verified file of one channel."""

    file: BundleFile
    token: Token[Release]


class ReleasedBundle:
    """A bundle that is released by policy keys.

    Args:
        place: Where it is kept.
        name: What it must be released under.
        keys: The JWK set of the policy keys.
        marks: What was adopted before.
        cache: Where to keep what was adopted, ``None`` for a place on disk.
        worker: What this worker is known by when a canary chooses.
        interval: Seconds between two looks at a remote place.
        leeway: How far the clocks may differ, in seconds.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        place: Place,
        *,
        name: str,
        keys: Path,
        marks: Marks,
        cache: FilePlace | None,
        worker: str,
        interval: float,
        leeway: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._place = place
        self._name = name
        self._keys = keys
        self._marks = marks
        self._cache = cache
        self._worker = worker
        self._interval = interval if place.remote else 0.0
        self._leeway = leeway
        self._clock = clock
        self._lock = threading.Lock()
        self._looked: float | None = None
        self._seen: Hashable = None
        self._ends = math.inf
        """When the adopted release ends."""
        self._read: dict[Channel, _Candidate] = {}
        """What the last offer was made of."""

    def __str__(self) -> str:
        return str(self._place)

    def state(self) -> Hashable:
        """What the place and the file of keys look like, and whether the adopted release has ended.

        A remote place is looked at once an interval.
        """
        with self._lock:
            now = time.monotonic()
            if self._looked is None or now - self._looked >= self._interval:
                self._seen = self._place.look()
                self._looked = time.monotonic()
            return self._seen, _stamp(self._keys), self._clock() >= self._ends

    def offer(self, current: Offer | None, fits: Fits = anything) -> Offer | None:
        """Read and verify what is there, and parse it when it is not in force.

        Raises:
            PolicyError: J1 to J7; there is no stable bundle that holds and fits.
        """
        if current is None:
            self.state()
        try:
            with _refusing(str(self._place)):
                return self._offer(self._place, current, fits)
        except PolicyError as error:
            if current is not None or self._cache is None:
                raise
            return self._kept(self._cache, error, fits)

    def accept(self, offer: Offer) -> None:
        """Remember that what was offered last is adopted.

        Raises:
            PolicyError: J6, or it cannot be remembered.
        """
        channel = offer.provenance.channel if offer.provenance else "stable"
        release = self._read[channel].token.claims
        self._remember(channel)
        self._ends = math.inf if release.exp is None else release.exp

    def _remember(self, channel: Channel) -> None:
        if channel == "canary":
            self._marks.raise_to(self._read["stable"].token.claims, "stable")  # [J34]
        self._marks.raise_to(self._read[channel].token.claims, channel)  # J21 to J23
        if self._cache is not None:
            self._keep(self._cache)

    def _offer(self, place: Place, current: Offer | None, fits: Fits) -> Offer | None:
        try:
            trust = read_policy_keys(self._keys)  # [J33]
        except ConfigurationError as error:
            raise PolicyError(f"{error}.") from None
        stable = self._verified(found(place, "stable"), place, "stable", trust)
        self._read = {"stable": stable}
        try:
            with _refusing(f"The canary of {place}"):
                canary = self._canary(place, trust, stable)
                if canary is not None:
                    self._read["canary"] = canary
                    offer = _parsed(canary, place, current, fits)
                    if offer is None:
                        self._remember("canary")  # [J34] the stable bundle beside it may be a newer one
                    return offer
        except PolicyError as error:  # [J31]
            self._read.pop("canary", None)
            here = current.provenance if current else None
            newer = here is not None and (here.sequence or 0) > stable.token.claims.sequence
            trusted = here is not None and any(anchor.kid == here.key for anchor in trust)  # [J33]
            if here and here.channel == "canary" and newer and trusted and self._clock() < self._ends:
                raise
            logger.warning("The canary of %s is left aside: %s", place, error)
        return _parsed(stable, place, current, fits)

    def _canary(self, place: Place, trust: TrustStore, stable: _Candidate) -> _Candidate | None:
        """The canary, if there is one that this worker is to follow (J8)."""
        data = place.read("canary")
        if data is None:
            return None
        canary = self._verified(data, place, "canary", trust)
        release = canary.token.claims
        newer = release.sequence > stable.token.claims.sequence
        return canary if newer and in_share(self._worker, release) else None

    def _verified(self, data: bytes, place: Place, channel: Channel, trust: TrustStore) -> _Candidate:
        name = str(place) if channel == "stable" else f"the canary of {place}"
        file = BundleFile.read(data, name)
        token = verify(file, name, trust, follows=self._name, channel=channel, now=self._clock(), leeway=self._leeway)
        check_order(token.claims, self._marks.get(self._name, channel), name)
        return _Candidate(file, token)

    def _kept(self, cache: FilePlace, error: PolicyError, fits: Fits) -> Offer | None:
        """What was adopted before, for a worker that starts while the place is away (J32)."""
        if cache.read("stable") is None:
            raise error
        try:
            with _refusing(str(cache)):
                offer = self._offer(cache, None, fits)  # [J32]
        except PolicyError as other:
            raise PolicyError(f"{error} What was adopted before cannot be used either: {other}") from None
        logger.warning("Starting with the policies that were adopted before, because of this: %s", error)
        return offer

    def _keep(self, cache: FilePlace) -> None:
        try:
            cache.path.parent.mkdir(mode=0o700, exist_ok=True)
            for channel in CHANNELS:
                candidate = self._read.get(channel)
                if candidate is None:
                    cache.withdraw(channel)
                else:
                    cache.write(channel, candidate.file.to_bytes(), lambda _: None)  # [J32]
        except (OSError, PolicyError) as error:
            logger.warning("The adopted policies are not kept for a start without %s: %s", self._place, error)


@contextmanager
def _refusing(name: str) -> Iterator[None]:
    """Whatever goes wrong with a bundle is a reason to refuse it, and to try another."""
    try:
        yield
    except (PolicyError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in Cedar's native code is not an Exception
        raise PolicyError(f"{name} cannot be loaded: {error!r}") from error


def _parsed(candidate: _Candidate, place: Place, current: Offer | None, fits: Fits) -> Offer | None:
    """The offer that a verified file makes, or ``None`` when it is in force."""
    contents = open_released(candidate.file, candidate.token, str(place))
    return offered(contents, provenance_of(contents, candidate.file, candidate.token), str(place), current, fits)


def offered(
    contents: Contents, provenance: Provenance, name: str, current: Offer | None, fits: Fits = anything
) -> Offer | None:
    """Make an offer, and parse the policies if they are not those in force.

    Args:
        contents: Of a bundle file.
        provenance: Who released it.
        name: What messages call the file.
        current: What is in force.
        fits: Refuses policies that parse.

    Raises:
        PolicyError: The policies do not parse, validate or fit.
    """
    if current is not None and current.bundle.digest == contents.source.digest:
        return None if current.provenance == provenance else Offer(current.bundle, provenance)
    try:
        bundle = PolicyBundle(contents.source)
        fits(bundle)
        return Offer(bundle, provenance)
    except PolicyError as error:
        raise PolicyError(f"{name}: {error}") from None


def _stamp(path: Path) -> Hashable:
    try:
        status = path.stat()
    except OSError as error:
        return error.errno
    return status.st_mtime_ns, status.st_size, status.st_ino
