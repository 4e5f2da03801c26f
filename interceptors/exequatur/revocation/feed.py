"""A revocation feed as it is at one moment, and its signed head. Pure: no clock, no file, no network.

Entries are only ever added. Each is linked to the one before, so that the digest of the last stands for all of them:
``link(n) = SHA-256(link(n - 1) "\\n" entry n as JSON)``, and the link of an empty feed is SHA-256 of
``exequatur-revocations``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from exequatur.errors import ConfigurationError
from exequatur.revocation.entry import Revocation, Subject
from exequatur.statements.encoding import digest

GENESIS = digest("exequatur-revocations")
PAGE_ENTRIES = 500
PAGE_BYTES = 256 * 1024
"""Of the entries in one page, unless one alone is longer."""


def linked(before: str, entry: Revocation) -> str:
    """The link of a feed that one entry was added to."""
    return digest(before.encode() + b"\n" + entry.line)


_EVERYTHING = ("everything", "")


def place_of(entry: Revocation) -> tuple[str, str]:
    """Where an index has an entry: under something that it names."""
    return next(iter(entry.named.items()), _EVERYTHING)


def places_of(subject: Subject) -> Iterator[tuple[str, str]]:
    """Where an index has what may revoke a subject."""
    yield _EVERYTHING
    for name, told in subject.items():
        for value in told if isinstance(told, frozenset) else (told,):
            yield name, value


@dataclass(frozen=True)
class Feed:
    """All entries up to one version, which is their number."""

    entries: tuple[Revocation, ...] = ()
    links: tuple[str, ...] = field(default=(GENESIS,), repr=False)
    """The link at each version, from 0 on."""

    @property
    def version(self) -> int:
        return len(self.entries)

    @property
    def link(self) -> str:
        """Stands for all entries."""
        return self.links[-1]

    def continues(self, before: Feed) -> bool:
        """Whether this is the other feed, with more entries or none."""
        return before.version <= self.version and self.links[before.version] == before.link

    def extended(self, entries: Iterable[Revocation]) -> Feed:
        """The feed with more entries."""
        added, links, last = [], [], self.link
        for entry in entries:
            last = linked(last, entry)
            added.append(entry)
            links.append(last)
        return Feed((*self.entries, *added), (*self.links, *links)) if added else self

    def admit(self, entry: Revocation) -> None:
        """Refuse an entry that lifts what cannot be lifted.

        Raises:
            ConfigurationError: There is no such entry, or it does not count any more.
        """
        if entry.lifts is None:
            return
        if entry.lifts > self.version or self.entries[entry.lifts - 1].lifts is not None:
            raise ConfigurationError(f"Nothing was lifted: the feed has no revocation {entry.lifts}")
        if entry.lifts in self._lifted:
            raise ConfigurationError(f"Nothing was lifted: revocation {entry.lifts} has been lifted already")

    @cached_property
    def _lifted(self) -> dict[int, int]:
        """Which entries are lifted, and by which; an entry can lift only what stands before it."""
        return {
            entry.lifts: number
            for number, entry in enumerate(self.entries, 1)
            if entry.lifts is not None and entry.lifts < number
        }

    def lifted_by(self, number: int) -> int | None:
        """Number of the entry that lifts this one, if there is one."""
        return self._lifted.get(number)

    @cached_property
    def _index(self) -> dict[tuple[str, str], list[tuple[int, Revocation]]]:
        """The entries that are not lifted, by something that each of them names."""
        found: dict[tuple[str, str], list[tuple[int, Revocation]]] = {}
        for number, entry in enumerate(self.entries, 1):
            if entry.lifts is None and number not in self._lifted:
                found.setdefault(place_of(entry), []).append((number, entry))
        return found

    def standing(self, now: float) -> Iterator[tuple[int, Revocation]]:
        """Yield what is revoked, with its number.

        Args:
            now: Seconds since 1970.
        """
        for number, entry in enumerate(self.entries, 1):
            if entry.lifts is None and number not in self._lifted and entry.stands(now):
                yield number, entry

    def find(self, subject: Subject, now: float) -> Revocation | None:
        """The first entry that ends what the subject is doing.

        Args:
            subject: Who is about to act.
            now: Seconds since 1970.
        """
        index = self._index
        if not index:
            return None
        found = (each for place in places_of(subject) for each in index.get(place, ()))
        matching = [each for each in found if each[1].stands(now) and each[1].revokes(subject)]
        return min(matching, key=lambda each: each[0])[1] if matching else None

    def revokes_key(self, kid: str, now: float) -> bool:
        """Whether a key is revoked, for whatever it signs.

        Args:
            kid: Its thumbprint.
            now: Seconds since 1970.
        """
        return any(entry.named == {"key": kid} and entry.stands(now) for _, entry in self._index.get(("key", kid), ()))


@dataclass(frozen=True)
class Page:
    """Entries after a version, and the signed head of the whole feed."""

    head: str
    """Compact token of a :class:`~exequatur.statements.models.RevocationHead`."""
    entries: tuple[Revocation, ...]
    """Oldest first."""
    more: bool = False
    """Whether there are more entries up to the head."""


def page_of(feed: Feed, after: int) -> tuple[tuple[Revocation, ...], bool]:
    """The entries of one page, and whether there are more.

    Args:
        feed: All of them.
        after: A version.
    """
    found: list[Revocation] = []
    size = 0
    for entry in feed.entries[after : after + PAGE_ENTRIES]:
        size += len(entry.line)
        if found and size > PAGE_BYTES:
            break
        found.append(entry)
    return tuple(found), after + len(found) < feed.version
