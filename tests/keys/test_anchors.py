"""Rules T5 to T7: what a running process learns of an authority's keys, and what becomes of those it does not know."""

import json
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, UnknownKeyError
from exequatur.statements.anchors import Anchors
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant, WorkloadCredential
from exequatur.statements.trust import Anchor, TrustStore
from tests.simulator import NOW


def anchor(key: SigningKey, **changes: Any) -> Anchor:
    return Anchor(**{"kid": key.kid, "x": key.x, "typ": (Grant.typ,), "iss": "a", "nbf": NOW} | changes)


def looks_up(trust: TrustStore, kid: str) -> UnknownKeyError:
    with pytest.raises(UnknownKeyError) as raised:
        trust.resolve(kid, typ=Grant.typ, iss="a", at=NOW)
    return raised.value


OLD, NEW, STRANGER = SigningKey.generate(), SigningKey.generate(), SigningKey.generate()


class Place:
    """Where anchors are published, on a clock of its own."""

    def __init__(self) -> None:
        self.trust = TrustStore([anchor(OLD)])
        self.published: bytes | Exception | None = self.trust.to_jwks()
        self.now = 100.0
        self.looks = 0
        self.anchors = Anchors(self.trust, self.read, every=60, source="the place", clock=lambda: self.now)

    def read(self) -> bytes | None:
        self.looks += 1
        if isinstance(self.published, Exception):
            raise self.published
        return self.published

    def publish(self, *anchors: Anchor) -> None:
        self.published = TrustStore(anchors).to_jwks()

    def passes(self, seconds: float) -> None:
        """Time passes, and the thread that looks looks."""
        self.now += seconds
        self.anchors.refresh_if_due()


@pytest.fixture
def place() -> Place:
    return Place()


# The store.


@pytest.mark.rule("T5")
def test_new_anchors_and_retirements_are_learned() -> None:
    trust = TrustStore([anchor(OLD)])
    published = TrustStore([anchor(OLD, exp=NOW + 5), anchor(NEW)])
    assert trust.learn(published.to_jwks())
    assert list(trust) == list(published)
    assert not trust.learn(published.to_jwks())


@pytest.mark.rule("T5")
@pytest.mark.parametrize(
    ("published", "why"),
    [
        ([anchor(NEW)], "lacks key"),
        ([anchor(NEW), anchor(OLD, nbf=NOW - 1)], "may be retired but not changed"),
        ([anchor(NEW), anchor(OLD, typ=(WorkloadCredential.typ,))], "may be retired but not changed"),
        ([anchor(NEW), anchor(OLD)], "may not be put back"),
        ([anchor(NEW), anchor(OLD, exp=NOW + 6)], "may not be put back"),
    ],
    ids=["shrunk", "changed", "another role", "put back", "prolonged"],
)
def test_a_set_that_is_not_this_one_grown_is_refused_as_a_whole(published: list[Anchor], why: str) -> None:
    trust = TrustStore([anchor(OLD, exp=NOW + 5)])
    with pytest.raises(ConfigurationError, match=f"^there: .*{why}|^there {why}"):
        trust.learn(TrustStore(published).to_jwks(), "there")
    assert list(trust) == [anchor(OLD, exp=NOW + 5)]


@pytest.mark.parametrize("data", [b"", b"[]", b"<html>", b'{"keys": [{}]}', b"\xff", b"[" * 100_000], ids=repr)
def test_what_is_no_set_of_anchors_changes_nothing(data: bytes) -> None:
    trust = TrustStore([anchor(OLD)])
    with pytest.raises(ConfigurationError, match="there"):
        trust.learn(data, "there")
    assert list(trust) == [anchor(OLD)]


# Following.


@pytest.mark.rule("T1", "T6")
def test_an_unknown_key_is_pending_until_a_look_that_began_later_has_succeeded(place: Place) -> None:
    assert looks_up(place.trust, STRANGER.kid).pending
    assert looks_up(place.trust, STRANGER.kid).pending
    place.passes(1)
    assert place.looks == 1
    assert not looks_up(place.trust, STRANGER.kid).pending


@pytest.mark.rule("T6")
def test_a_key_that_was_published_meanwhile_is_known_after_the_look(place: Place) -> None:
    looks_up(place.trust, NEW.kid)
    place.publish(anchor(OLD), anchor(NEW))
    place.passes(1)
    assert place.trust.resolve(NEW.kid, typ=Grant.typ, iss="a", at=NOW).kid == NEW.kid


@pytest.mark.rule("T6")
@pytest.mark.parametrize(
    "answer", [OSError("no route"), ConfigurationError("not now"), b"<html>", TrustStore().to_jwks()], ids=repr
)
def test_while_the_anchors_cannot_be_read_nobody_says_that_a_key_is_bad(
    place: Place, answer: bytes | Exception
) -> None:
    good, place.published = place.published, answer
    looks_up(place.trust, STRANGER.kid)
    for _ in range(3):
        place.passes(1)
        assert place.anchors.problem
        assert looks_up(place.trust, STRANGER.kid).pending
    assert list(place.trust) == [anchor(OLD)]
    place.published = good
    place.passes(1)
    assert place.anchors.problem is None
    assert not looks_up(place.trust, STRANGER.kid).pending


@pytest.mark.rule("T6")
def test_a_key_that_is_asked_for_while_a_look_goes_on_waits_for_the_next(place: Place) -> None:
    def read() -> bytes | None:
        place.now += 1
        looks_up(place.trust, NEW.kid)
        return place.read()

    place.anchors._read = read
    looks_up(place.trust, STRANGER.kid)
    place.passes(1)
    assert not looks_up(place.trust, STRANGER.kid).pending
    assert looks_up(place.trust, NEW.kid).pending


@pytest.mark.rule("T7")
def test_keys_that_somebody_makes_up_cause_one_look_a_second(place: Place) -> None:
    for step in range(16):
        for number in range(100):
            place.anchors.asked(f"made up {step} {number}")
        place.passes(0.25)
    assert place.looks == 4


def test_a_flood_of_unknown_keys_is_not_remembered_for_ever(place: Place) -> None:
    for number in range(5000):
        assert place.anchors.asked(f"flood-{number}")
    assert len(place.anchors._asked) <= 1024
    place.passes(1)
    assert place.anchors.asked("one more")
    assert len(place.anchors._asked) <= 1024


def test_nobody_looks_before_it_is_time(place: Place) -> None:
    for _ in range(59):
        place.passes(1)
    assert place.looks == 0
    place.passes(1)
    assert place.looks == 1


def test_a_key_is_worth_another_look_after_a_while(place: Place) -> None:
    looks_up(place.trust, NEW.kid)
    place.passes(1)
    assert not looks_up(place.trust, NEW.kid).pending
    place.now += 61
    assert looks_up(place.trust, NEW.kid).pending


def test_a_place_that_says_nothing_has_changed_changes_nothing(place: Place) -> None:
    place.published = None
    place.passes(60)
    assert place.anchors.problem is None
    assert [each["kid"] for each in json.loads(place.trust.to_jwks())["keys"]] == [OLD.kid]
