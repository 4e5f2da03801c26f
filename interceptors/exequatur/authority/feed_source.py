"""The revocation feed of an authority service, as those ask for it who follow it, and those who add to it.

Nothing that comes is believed here: rules RV of :mod:`exequatur.revocation.following` do that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from exequatur.authority.api import MAX_WAIT, REVOCATIONS_PATH, Body, FeedPage, Problem, Revoked
from exequatur.authority.connection import Answer, Connection, UnreachableError
from exequatur.errors import FeedUnreachableError, RevocationFeedError
from exequatur.revocation.entry import Revocation, read_entry
from exequatur.revocation.feed import Page
from exequatur.statements.encoding import strict_json

MAX_ENTRIES = 1_000_000
"""More than that in one answer is no feed but somebody who never ends."""

B = TypeVar("B", bound=Body)


class DeniedError(RevocationFeedError):
    """The authority's policies do not permit it."""


class AuthoritySource:
    """Follows the feed of an authority service by long polls.

    Args:
        connection: To the service.
        headers: What shows who asks.
    """

    slow = True

    def __init__(self, connection: Connection, headers: Callable[[], Mapping[str, str]], *, timeout: float) -> None:
        self._connection = connection
        self._headers = headers
        self._longest = min(MAX_WAIT, timeout / 2)
        """Seconds to wait for something new; the rest is for the answer."""

    def fetch(self, after: int, wait: float) -> Page:
        entries: list[Revocation] = []
        page = self._page(after, min(wait, self._longest))
        while True:
            try:
                entries += [read_entry(each) for each in page.entries]
            except ValueError as err:
                raise RevocationFeedError(f"{self} gives {err}") from err
            if not page.more:
                return Page(page.head, tuple(entries))
            if not page.entries or len(entries) > MAX_ENTRIES:
                raise RevocationFeedError(f"{self} promises entries and gives none, or never ends")
            page = self._page(after + len(entries), 0.0)

    def _page(self, after: int, wait: float) -> FeedPage:
        answer = self._ask("GET", params={"after": after, "wait": wait})
        return self._read(answer, FeedPage)

    def add(self, entry: Mapping[str, Any]) -> int:
        """Have the authority revoke, or lift a revocation.

        Args:
            entry: As :class:`exequatur.authority.api.RevocationBody`.

        Returns:
            The feed's version with the entry in it.

        Raises:
            FeedUnreachableError: There is no answer; whether it was added is not known.
            ExequaturError: It was refused.
        """
        return self._read(self._ask("POST", json=dict(entry)), Revoked).version

    def _ask(self, method: str, **request: Any) -> Answer:
        try:
            return self._connection.ask_now(method, REVOCATIONS_PATH, headers=dict(self._headers()), **request)
        except UnreachableError as err:
            raise FeedUnreachableError(str(err)) from None

    def _read(self, answer: Answer, kind: type[B]) -> B:
        """What an answer says.

        Raises:
            FeedUnreachableError: It says "not now", or nothing that can be read.
            RevocationFeedError: It says no.
        """
        try:
            body = strict_json(answer.body) if answer.is_json else None
            if answer.status == 200:
                return kind.model_validate(body)
            said = Problem.model_validate(body).error_description
        except (ValueError, ValidationError):
            raise FeedUnreachableError(f"{self} answers {answer.status}, and nothing that is a feed") from None
        if answer.status in (429, 500, 502, 503, 504):
            raise FeedUnreachableError(f"{self} cannot answer now: {said}")
        raise (DeniedError if answer.status == 403 else RevocationFeedError)(f"{self} refuses: {said}")

    def __str__(self) -> str:
        return self._connection.url(REVOCATIONS_PATH)
