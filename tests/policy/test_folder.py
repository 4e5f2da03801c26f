"""The watch: an edit takes effect, a bad one does not, and nothing ends it."""

import os
import shutil
import threading
from pathlib import Path

import pytest

from exequatur.errors import PolicyError
from exequatur.policy.folder import PolicyFolder, PolicyWatch
from exequatur.policy.offer import Offer
from exequatur.policy.source import BundleSource

OLD = '@id("old") permit(principal, action, resource);'
NEW = '@id("new") permit(principal, action, resource);'


class Seen:
    """What a watch handed over."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.offers: list[Offer] = []
        self.refusals: list[PolicyError] = []
        self.current = Offer(PolicyFolder(folder).load())
        self.watch = PolicyWatch(
            folder, 0.02, on_change=self.offers.append, on_refused=self.refusals.append, current=self.current
        )

    def scan(self, times: int = 2) -> None:
        for _ in range(times):
            self.watch.scan()

    @property
    def names(self) -> list[str]:
        return [info.id for offer in self.offers for info in offer.bundle.policies.values()]


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    (tmp_path / "a.cedar").write_text(OLD)
    return Seen(tmp_path)


def test_an_unchanged_folder_hands_nothing_over(seen: Seen) -> None:
    seen.scan(4)
    assert (seen.offers, seen.refusals) == ([], [])


def test_without_a_bundle_in_force_the_first_one_is_handed_over(seen: Seen) -> None:
    watch = PolicyWatch(seen.folder, on_change=seen.offers.append, on_refused=seen.refusals.append)
    watch.scan()
    watch.scan()
    assert seen.names == ["old"]


def test_an_edit_is_handed_over_once(seen: Seen) -> None:
    seen.scan()
    (seen.folder / "a.cedar").write_text(NEW)
    seen.scan(5)
    assert seen.names == ["new"]


@pytest.mark.rule("folder.W1")
def test_an_edit_is_loaded_only_when_it_looks_the_same_twice(seen: Seen) -> None:
    seen.scan()
    for length in range(10, len(NEW), 10):
        (seen.folder / "a.cedar").write_text(NEW[:length])
        seen.scan(1)
    (seen.folder / "a.cedar").write_text(NEW)
    seen.scan(1)
    assert (seen.offers, seen.refusals) == ([], [])
    seen.scan(1)
    assert seen.names == ["new"]


def test_a_touched_file_with_the_same_content_hands_nothing_over(seen: Seen) -> None:
    seen.scan()
    os.utime(seen.folder / "a.cedar", ns=(1, 1))
    seen.scan(3)
    assert (seen.offers, seen.refusals) == ([], [])


@pytest.mark.rule("folder.W2")
def test_a_policy_that_does_not_parse_is_refused_once_and_keeps_the_old_one_in_force(seen: Seen) -> None:
    (seen.folder / "b.cedar").write_text("permit(")
    seen.scan(5)
    assert seen.offers == []
    assert len(seen.refusals) == 1
    assert "b.cedar" in str(seen.refusals[0])
    (seen.folder / "b.cedar").unlink()
    seen.scan(3)
    assert (seen.offers, len(seen.refusals)) == ([], 1)
    (seen.folder / "a.cedar").write_text(NEW)
    seen.scan(3)
    assert seen.names == ["new"]


@pytest.mark.rule("folder.W3")
def test_a_folder_that_vanishes_is_refused_and_may_come_back(seen: Seen) -> None:
    seen.scan()
    shutil.rmtree(seen.folder)
    seen.scan(4)
    assert len(seen.refusals) == 1
    assert "does not exist" in str(seen.refusals[0])
    seen.folder.mkdir()
    (seen.folder / "a.cedar").write_text(NEW)
    seen.scan(3)
    assert seen.names == ["new"]


def test_a_bundle_that_could_not_be_taken_over_is_handed_over_again(seen: Seen) -> None:
    taken = []

    def take(offer: Offer) -> None:
        taken.append(offer)
        if len(taken) == 1:
            raise RuntimeError("not yet")

    watch = PolicyWatch(seen.folder, on_change=take, on_refused=seen.refusals.append)
    watch.scan()
    with pytest.raises(RuntimeError):
        watch.scan()
    watch.scan()
    watch.scan()
    assert len(taken) == 2


@pytest.mark.rule("folder.W1")
def test_a_file_written_while_the_folder_is_read_is_read_again(seen: Seen) -> None:
    class Busy(PolicyFolder):
        def read(self) -> BundleSource:
            source = super().read()
            if not seen.offers and "old" in source.policy_text:
                (self.path / "a.cedar").write_text(NEW)
            return source

    watch = PolicyWatch(Busy(seen.folder), on_change=seen.offers.append, on_refused=seen.refusals.append)
    for _ in range(5):
        watch.scan()
    assert seen.names == ["new"]


@pytest.mark.rule("folder.W4")
def test_whatever_goes_wrong_while_loading_is_a_refusal(seen: Seen) -> None:
    class Broken(PolicyFolder):
        def read(self) -> BundleSource:
            raise SystemExit("a panic")

    watch = PolicyWatch(Broken(seen.folder), on_change=seen.offers.append, on_refused=seen.refusals.append)
    for _ in range(4):
        watch.scan()
    assert len(seen.refusals) == 1
    assert "a panic" in str(seen.refusals[0])


@pytest.mark.rule("folder.W5")
@pytest.mark.parametrize("text", [NEW, "permit("], ids=["good", "bad"])
def test_a_watch_that_was_stopped_hands_nothing_over(seen: Seen, text: str) -> None:
    """It is stopped while its source is being asked."""
    asked = threading.Event()
    threads = []

    class Late(PolicyFolder):
        def read(self) -> BundleSource:
            threads.append(threading.current_thread())
            watch.stop()
            asked.set()
            return super().read()

    (seen.folder / "a.cedar").write_text(text)
    watch = PolicyWatch(Late(seen.folder), 0.01, on_change=seen.offers.append, on_refused=seen.refusals.append)
    watch.start()
    assert asked.wait(10)
    threads[0].join(10)
    assert (seen.offers, seen.refusals) == ([], [])


@pytest.mark.rule("folder.W4")
def test_the_thread_takes_up_edits_survives_errors_and_stops(seen: Seen) -> None:
    events = {"refused": threading.Event(), "changed": threading.Event()}

    def refuse(error: PolicyError) -> None:
        events["refused"].set()
        raise RuntimeError("a careless callback")

    watch = PolicyWatch(
        seen.folder, 0.02, on_change=lambda _: events["changed"].set(), on_refused=refuse, current=seen.current
    )
    before = set(threading.enumerate())
    watch.start()
    watch.start()
    assert len(set(threading.enumerate()) - before) == 1
    try:
        (seen.folder / "a.cedar").write_text("permit(")
        assert events["refused"].wait(10)
        (seen.folder / "a.cedar").write_text(NEW)
        assert events["changed"].wait(10)
    finally:
        watch.stop()
    assert not set(threading.enumerate()) - before
    events["changed"].clear()
    (seen.folder / "a.cedar").write_text(OLD)
    assert not events["changed"].wait(0.1)


@pytest.mark.rule("folder.W2")
def test_what_was_refused_is_looked_at_again_and_reported_when_the_reason_is_another(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem: list[str] = ["too many open files"]

    class Troubled(PolicyFolder):
        def read(self) -> BundleSource:
            if problem:
                raise PolicyError(problem[0])
            return super().read()

    watch = PolicyWatch(Troubled(seen.folder), on_change=seen.offers.append, on_refused=seen.refusals.append)
    for _ in range(4):
        watch.scan()
    problem[0] = "not readable"
    watch.scan()
    assert [str(error) for error in seen.refusals] == ["too many open files"]
    monkeypatch.setattr("exequatur.policy.folder._RETRY", 0.0)
    for _ in range(4):
        watch.scan()
    assert [str(error) for error in seen.refusals] == ["too many open files", "not readable"]
    problem.clear()
    watch.scan()
    assert seen.names == ["old"]
