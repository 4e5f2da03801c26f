"""Whoever follows a feed believes what is signed, complete and new, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from exequatur.errors import ConfigurationError, FeedUnreachableError
from exequatur.revocation.entry import revocation
from exequatur.revocation.feed import Feed, Page
from exequatur.revocation.following import FollowedRevocations
from exequatur.revocation.head import KNOWN
from exequatur.statements.keys import SigningKey
from exequatur.statements.models import Grant
from tests.revocation.conftest import BOUND, LEEWAY, Authority, Script, entries

Follow = Callable[..., FollowedRevocations]


def test_what_is_revoked_in_the_folder_is_revoked_for_those_who_follow_it(authority: Authority, follow: Follow) -> None:
    authority.revoke(workflow="a")
    changes: list[int] = []
    worker = follow(on_change=lambda: changes.append(1))
    assert (worker.version, worker.doubt()) == (1, None)
    authority.revoke(principal='User::"eve"', until=authority.clock() + 60)
    worker.tend()
    assert worker.find({"principal": 'User::"eve"'})
    authority.clock.off = 61
    assert not worker.find({"principal": 'User::"eve"'})
    assert worker.find({"workflow": "a"})
    assert len(changes) == 2
    with pytest.raises(ConfigurationError, match="Revoke where that is kept"):
        worker.add(entries("b")[0])


def refuses(worker: FollowedRevocations, script: Script, page: Page, why: str) -> None:
    """The page is not believed, what was known stays, and nothing new is allowed."""
    before = worker.feed
    script.next = page
    worker.refresh()
    assert why in (worker.problem or "")
    assert worker.doubt()
    assert worker.feed == before


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def worker(authority: Authority, follow: Follow, script: Script) -> FollowedRevocations:
    """Knows two entries."""
    for name in "ab":
        authority.revoke(workflow=name)
    script.next = Page(authority.head().text, authority.own.entries)
    started = follow(script)
    assert (started.version, started.doubt()) == (2, None)
    return started


@pytest.mark.rule("RV1")
def test_a_head_that_nobody_signed_who_may_is_refused(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    grants = SigningKey.generate()
    authority.anchor(grants, Grant.typ)
    more = authority.own.feed.extended(entries("c"))
    good = authority.head(more).text
    forged = good[:-8] + ("A" * 8 if not good.endswith("A" * 8) else "B" * 8)
    refuses(worker, script, Page(authority.head(more, grants).text, more.entries), "may not sign")
    refuses(worker, script, Page(forged, more.entries), "V")
    refuses(worker, script, Page("", more.entries), "V2")
    refuses(worker, script, Page("x" * 5000, more.entries), "V1")
    script.next = Page(good, more.entries)
    worker.refresh()
    assert (worker.version, worker.problem) == (3, None)


@pytest.mark.rule("RV1")
def test_a_key_that_is_not_known_yet_is_no_verdict_and_nothing_is_believed_by_it(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    new = SigningKey.generate()
    more = authority.own.feed.extended(entries("c"))
    script.next = Page(authority.head(more, new).text, more.entries)
    worker.refresh()
    assert (worker.version, worker.problem, worker.doubt()) == (2, None, None)
    authority.anchor(new)
    worker.refresh()
    assert worker.version == 3


@pytest.mark.rule("RV2")
def test_the_feed_of_another_cluster_is_refused(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    more = authority.own.feed.extended(entries("c"))
    refuses(worker, script, Page(authority.head(more, aud="elsewhere/prod").text, more.entries), "elsewhere/prod")


@pytest.mark.rule("RV3")
def test_a_feed_that_was_rolled_back_is_refused(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    old = Feed().extended(authority.own.entries[:1])
    refuses(worker, script, Page(authority.head(old).text, old.entries), "rolled back")
    refuses(worker, script, Page(authority.head(Feed()).text, ()), "rolled back")


@pytest.mark.rule("RV3")
@pytest.mark.rule("RV7")
@pytest.mark.rule("RH2")
def test_a_feed_that_was_rolled_back_is_refused_after_a_restart_too(
    authority: Authority, worker: FollowedRevocations, script: Script, follow: Follow
) -> None:
    old = Feed().extended(authority.own.entries[:1])
    script.next = Page(authority.head(old).text, old.entries)
    again = follow(script)
    assert "rolled back" in (again.problem or "")
    assert again.doubt()
    other = old.extended(entries("x"))
    script.next = Page(authority.head(other).text, other.entries)
    again = follow(script)
    assert "other entries than before" in (again.problem or "")


@pytest.mark.rule("RV7")
def test_what_cannot_be_remembered_counts_and_is_a_problem(
    authority: Authority, worker: FollowedRevocations, script: Script, tmp_path: Path
) -> None:
    told: list[int] = []
    worker._on_change = lambda: told.append(worker.version)
    known = tmp_path / "worker" / KNOWN
    known.unlink()
    known.mkdir()
    authority.revoke(workflow="c")
    script.next = Page(authority.head().text, authority.own.entries)
    worker.refresh()
    assert worker.find({"workflow": "c"})
    assert told == [3]
    assert KNOWN in (worker.problem or "")


@pytest.mark.rule("RV3")
def test_a_memory_that_was_edited_is_a_problem(
    authority: Authority, worker: FollowedRevocations, script: Script, follow: Follow, tmp_path: Path
) -> None:
    (tmp_path / "worker" / KNOWN).write_text("nothing was known\n")
    again = follow(script)
    assert KNOWN in (again.problem or "")


@pytest.mark.rule("RV4")
def test_entries_that_do_not_lead_to_the_head_are_refused(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    more = authority.own.feed.extended(entries("c", "d"))
    head = authority.head(more).text
    a, b, c, d = more.entries
    for wrong in ((a, b, c), (a, b, d, c), (a, b, c, d, d), (a, b, d), (a, b), (a, b, entries("x")[0], d)):
        refuses(worker, script, Page(head, wrong), "do not lead to its signed head")
    refuses(worker, script, Page(authority.head(more, version=5).text, more.entries), "do not lead")


@pytest.mark.rule("RV5")
def test_a_head_from_the_future_is_refused(authority: Authority, worker: FollowedRevocations, script: Script) -> None:
    early = authority.head(iat=authority.clock() + LEEWAY + 5)
    refuses(worker, script, Page(early.text, authority.own.entries), "in the future")
    script.next = Page(authority.head(iat=authority.clock() + LEEWAY - 5).text, authority.own.entries)
    worker.refresh()
    assert worker.doubt() is None


@pytest.mark.rule("RV5")
def test_what_is_known_lapses_when_nothing_newer_comes(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    same = script.next
    authority.clock.off = BOUND + LEEWAY + 1
    worker.refresh()
    assert worker.lapsed
    assert "nothing new for" in (worker.doubt() or "")
    # Not even when the same head is shown again and again.
    script.next = same
    worker.refresh()
    assert worker.lapsed
    script.next = Page(authority.head().text, authority.own.entries)
    worker.refresh()
    assert not worker.lapsed
    assert worker.doubt() is None


@pytest.mark.rule("RV5")
def test_a_slow_clock_does_not_keep_an_old_head_fresh(worker: FollowedRevocations) -> None:
    worker._came -= BOUND + 1
    worker.refresh()  # the same head once more
    assert worker.lapsed
    assert worker.age() > BOUND


def test_a_feed_that_was_never_heard_of_allows_nothing(authority: Authority, follow: Follow) -> None:
    worker = follow()
    assert worker.lapsed
    assert "never heard of" in (worker.doubt() or "")
    assert "revocations.head is not there" in (worker.doubt() or "")


def test_a_feed_that_cannot_be_reached_counts_until_it_is_too_old(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    script.next = FeedUnreachableError("nobody there")
    worker.refresh()
    assert worker.doubt() is None
    authority.clock.off = BOUND + LEEWAY + 1
    assert "nobody there" in (worker.doubt() or "")


def test_a_source_that_breaks_is_a_problem_and_not_an_exception(worker: FollowedRevocations, script: Script) -> None:
    script.next = RuntimeError("a bug")
    worker.refresh()
    assert "could not be followed" in (worker.problem or "")


async def test_a_folder_that_does_not_answer_holds_up_no_event_loop(
    worker: FollowedRevocations, script: Script
) -> None:
    answers = threading.Event()
    page = script.next
    script.fetch = lambda after, wait: answers.wait(10) and page  # type: ignore[method-assign, assignment]
    thread = threading.Thread(target=worker.tend)
    thread.start()
    threading.Timer(1.0, answers.set).start()
    looking = asyncio.ensure_future(worker.look())
    await asyncio.sleep(0.05)
    went_on = not answers.is_set()
    answers.set()
    await looking
    await asyncio.to_thread(thread.join)
    assert went_on


@pytest.mark.rule("RV6")
def test_a_head_signed_with_a_key_that_the_feed_revokes_is_refused(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    new = SigningKey.generate()
    authority.anchor(new)
    kid = authority.key.kid
    more = authority.own.feed.extended([revocation(key=kid, reason="stolen")])
    refuses(worker, script, Page(authority.head(more).text, more.entries), "which it revokes")
    script.next = Page(authority.head(more, new).text, more.entries)
    worker.refresh()
    assert worker.version == 3
    # Whoever has the key cannot lift that.
    lifted = more.extended([revocation(lifts=3, reason="it was not")])
    refuses(worker, script, Page(authority.head(lifted).text, lifted.entries), "which it revokes")


def test_the_kill_switch_does_not_silence_the_feed(
    authority: Authority, worker: FollowedRevocations, script: Script
) -> None:
    authority.revoke(everything=True)
    script.next = Page(authority.head().text, authority.own.entries)
    worker.refresh()
    assert (worker.version, worker.problem) == (3, None)
    authority.revoke(lifts=3)
    script.next = Page(authority.head().text, authority.own.entries)
    worker.refresh()
    assert not worker.find({})


@pytest.mark.parametrize("head", [b"", b"\xff\xfe\n", b"x" * 4000, b"a.b.c\n"], ids=["empty", "bytes", "long", "none"])
def test_a_folder_with_a_spoiled_head_is_a_problem(authority: Authority, follow: Follow, head: bytes) -> None:
    authority.revoke(workflow="a")
    worker = follow()
    (authority.folder / "revocations.head").write_bytes(head)
    worker.tend()
    assert worker.doubt() is None or worker.problem
    worker._came -= BOUND + 1
    assert worker.doubt()
    assert worker.find({"workflow": "a"})


def test_a_folder_whose_entries_were_cut_is_a_problem(authority: Authority, follow: Follow) -> None:
    authority.revoke(workflow="a")
    worker = follow()
    authority.revoke(workflow="b")
    path = authority.folder / "revocations"
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    worker.tend()
    assert "do not lead" in (worker.problem or "")


def test_a_slow_source_is_followed_on_a_thread_that_ends_when_nobody_tends_it(
    authority: Authority, follow: Follow, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exequatur.revocation.following._UNTENDED", 0.3)
    script.slow = True
    authority.revoke(workflow="a")
    script.next = Page(authority.head().text, authority.own.entries)
    worker = follow(script)
    assert worker.doubt()
    worker.tend()
    until = time.monotonic() + 10
    while worker.doubt() and time.monotonic() < until:
        time.sleep(0.01)
    assert worker.version == 1
    assert worker._thread is not None
    worker._thread.join(10)
    assert not worker._thread.is_alive()
