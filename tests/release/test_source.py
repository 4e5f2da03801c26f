"""The bundle that a worker follows: what it is offered, day by day, by places that are honest, broken or hostile."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from exequatur.errors import ConfigurationError, PolicyError
from exequatur.policy import folder as folder_module
from exequatur.policy.folder import PolicyFolder, PolicyWatch
from exequatur.policy.offer import Offer, PolicySource
from exequatur.release import source as source_module
from exequatur.release.opening import CACHE_NAME, MARKS_NAME, open_policies
from exequatur.release.places import place_of
from exequatur.release.source import ReleasedBundle
from exequatur.release.unsigned import UnverifiedBundle
from exequatur.settings import Settings
from tests.release.parties import PERMIT, PolicyTeam, Server, breaking_off, made, redirect, status

PATH, CANARY = "/policies.bundle", "/policies.canary.bundle"


def policies(name: str) -> str:
    return f'@id("{name}") permit(principal, action, resource);\n'


def anything(_: object) -> None: ...


@dataclass
class Worker:
    """Follows a bundle as a worker does; ``start`` is a start of its process."""

    where: str
    state: Path
    settings: Settings
    worker: str = "host/dev:1"
    offers: list[Offer] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    def start(self) -> Offer:
        self.source: PolicySource = open_policies(self.where, self.settings, state_dir=self.state, worker=self.worker)
        offer = self.source.offer(None)
        assert offer is not None
        self.source.accept(offer)
        self.offers.append(offer)
        self.watch = PolicyWatch(
            self.source, on_change=self._adopt, on_refused=lambda error: self.refusals.append(str(error)), current=offer
        )
        self.look()
        return offer

    def _adopt(self, offer: Offer) -> None:
        self.source.accept(offer)
        self.offers.append(offer)

    def look(self) -> None:
        for _ in range(3):
            time.sleep(0.002)  # longer than the shortest interval
            self.watch.scan()

    @property
    def in_force(self) -> str:
        """Name of the policy in force."""
        return next(iter(self.offers[-1].bundle.policies.values())).id

    @property
    def release(self) -> tuple[str, int | None]:
        provenance = self.offers[-1].provenance
        assert provenance is not None
        return provenance.channel, provenance.sequence


@pytest.fixture
def worker(team: PolicyTeam, tmp_path: Path) -> Callable[..., Worker]:
    """Makes a worker with the team's keys; the same state folder unless told otherwise."""

    def make(where: object, *, state: str = "state", name: str = "host/dev:1", **settings: Any) -> Worker:
        folder = tmp_path / state
        folder.mkdir(mode=0o700, exist_ok=True)
        settings.setdefault("policy_keys", str(team.keys))
        settings.setdefault("policy_fetch_interval", 0.001)
        return Worker(str(where), folder, Settings(**settings), name)

    return make


@dataclass
class Kept:
    """One of the places that a bundle is kept in, for the team to write to."""

    where: str
    put: Callable[[str, bytes | None], None]


@pytest.fixture(params=["file", "folder", "http", "sqlite"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    if request.param == "http":
        shelf: Server = request.getfixturevalue("shelf")
        paths = {"stable": PATH, "canary": CANARY}

        def put(channel: str, data: bytes | None) -> None:
            if data is None:
                del shelf.files[paths[channel]]
            else:
                shelf.files[paths[channel]] = data

        yield Kept(shelf.url(), put)
        return
    (tmp_path / "kept").mkdir()
    where = {"file": "kept/policies.bundle", "folder": "kept", "sqlite": "kept/store.db"}[request.param]
    address = f"store:{tmp_path / where}" if request.param == "sqlite" else str(tmp_path / where)
    place = place_of(address, "policies", create=True)

    def write(channel: Any, data: bytes | None) -> None:
        if data is None:
            assert place.withdraw(channel)
        else:
            place.write(channel, data, anything)

    yield Kept(address, write)
    place.close()


def test_a_worker_follows_the_releases_of_a_place(kept: Kept, worker, team: PolicyTeam):
    kept.put("stable", team.released(policies("one"), 1))
    w = worker(kept.where)
    w.start()
    assert (w.in_force, w.release) == ("one", ("stable", 1))
    kept.put("stable", team.released(policies("two"), 2))
    w.look()
    assert (w.in_force, w.release) == ("two", ("stable", 2))
    kept.put("stable", team.released(policies("one"), 3))
    w.look()
    assert (w.in_force, w.release) == ("one", ("stable", 3)), "rolled back by a new release"
    assert (w.refusals, len(w.offers)) == ([], 3)


@pytest.mark.rule("J8")
def test_a_canary_is_for_its_share_until_it_is_promoted_or_withdrawn(kept: Kept, worker, team: PolicyTeam):
    kept.put("stable", team.released(policies("one"), 1))
    in_it, out = worker(kept.where, name="a"), worker(kept.where, name="b", state="other")
    in_it.start()
    out.start()
    share = next(
        share
        for share in range(1, 100)
        if source_module.in_share("a", _release(team, share)) != source_module.in_share("b", _release(team, share))
    )
    if source_module.in_share("b", _release(team, share)):
        in_it, out = out, in_it
    kept.put("canary", team.released(policies("two"), 2, share=share))
    for each in (in_it, out):
        each.look()
    assert (in_it.in_force, in_it.release) == ("two", ("canary", 2))
    assert (out.in_force, out.release) == ("one", ("stable", 1))
    kept.put("canary", None)
    for each in (in_it, out):
        each.look()
    assert (in_it.in_force, in_it.release) == ("one", ("stable", 1)), "withdrawn"
    kept.put("canary", team.released(policies("two"), 3, share=share))
    in_it.look()
    kept.put("stable", team.released(policies("two"), 4))
    for each in (in_it, out):
        each.look()
    assert in_it.release == out.release == ("stable", 4), "promoted"
    assert in_it.offers[-1].bundle is in_it.offers[-2].bundle, "the same policies are not parsed again"
    assert in_it.refusals == out.refusals == []


def _release(team: PolicyTeam, share: int) -> Any:
    from exequatur.statements.jws import parse
    from exequatur.statements.models import Release

    return parse(team.release(made(policies("two")), 2, share=share).releases[0], Release).claims


BAD: dict[str, Callable[[PolicyTeam, PolicyTeam, float], bytes]] = {
    "unsigned": lambda team, mallory, now: made(policies("bad")).to_bytes(),
    "another key": lambda team, mallory, now: mallory.released(policies("bad"), 9),
    "truncated": lambda team, mallory, now: team.released(policies("bad"), 9)[:-30],
    "altered": lambda team, mallory, now: team.released(policies("bad"), 9).replace(b"permit", b"forbid"),
    "replayed": lambda team, mallory, now: team.released(policies("bad"), 1),
    "the same sequence": lambda team, mallory, now: team.released(policies("bad"), 2),
    "expired": lambda team, mallory, now: team.release(
        made(policies("bad")), 9, now=now - 100, expires=float(int(now - 50))
    ).to_bytes(),
    "from the future": lambda team, mallory, now: team.release(made(policies("bad")), 9, now=now + 999).to_bytes(),
    "another name": lambda team, mallory, now: team.released(policies("bad"), 9, name="staging"),
    "a canary": lambda team, mallory, now: team.released(policies("bad"), 9, share=100),
    "garbage": lambda team, mallory, now: os.urandom(500),
    "empty": lambda team, mallory, now: b"",
    "too large": lambda team, mallory, now: b" " * (18 << 20),
    "nested deeply": lambda team, mallory, now: b'{"content":' + b"[" * 500_000 + b',"releases":["a.b.c"]}',
    "a page": lambda team, mallory, now: b"<html>Sign in</html>",
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", ["file", "http"])
def test_what_was_in_force_stays_when_something_bad_comes(
    kind: str, bad: str, worker, shelf: Server, team: PolicyTeam, tmp_path: Path, now: float
):
    path = tmp_path / "policies.bundle"

    def put(data: bytes) -> None:
        if kind == "file":
            path.write_bytes(data)
        else:
            shelf.files[PATH] = data

    put(team.released(policies("good"), 2))
    w = worker(path if kind == "file" else shelf.url())
    w.start()
    put(BAD[bad](team, PolicyTeam(tmp_path, "mallory"), now))
    w.look()
    w.look()
    assert (w.in_force, w.release) == ("good", ("stable", 2))
    assert len(w.refusals) == 1, "reported once"
    put(team.released(policies("better"), 3))
    w.look()
    assert w.in_force == "better"


@pytest.mark.parametrize("bad", BAD)
def test_a_worker_does_not_start_with_something_bad(bad: str, worker, team: PolicyTeam, tmp_path: Path, now: float):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("good"), 2))
    worker(path).start()
    path.write_bytes(BAD[bad](team, PolicyTeam(tmp_path, "mallory"), now))
    with pytest.raises(PolicyError, match=r"policies\.bundle"):
        worker(path).start()


@pytest.mark.parametrize(
    "answer",
    [
        status(404),
        status(500),
        status(403),
        redirect(PATH),
        redirect("https://127.0.0.1:1/x"),
        breaking_off(PERMIT.encode(), 3),
    ],
    ids=["404", "500", "403", "loop", "scheme", "broken"],
)
def test_what_was_in_force_stays_while_the_server_has_a_bad_day(answer: Any, worker, shelf: Server, team: PolicyTeam):
    shelf.files[PATH] = team.released(policies("good"), 2)
    w = worker(shelf.url())
    w.start()
    shelf.bad[PATH] = answer
    w.look()
    w.look()
    assert (w.in_force, len(w.refusals)) == ("good", 1)
    assert shelf.url() in w.refusals[0]
    del shelf.bad[PATH]
    shelf.files[PATH] = team.released(policies("better"), 3)
    w.look()
    assert (w.in_force, len(w.refusals)) == ("better", 1)


def test_policies_that_are_signed_and_do_not_parse_change_nothing(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("good"), 1))
    w = worker(path)
    w.start()
    broken = made().content.replace(b"permit(", b"permit ")
    document = type(made())(broken)
    with pytest.raises(PolicyError):
        team.release(document, 2)
    path.write_bytes(_signed_anyway(team, broken, 2))
    w.look()
    assert w.in_force == "good"
    assert "main.cedar" in w.refusals[0]


def _signed_anyway(team: PolicyTeam, content: bytes, sequence: int, share: int | None = None) -> bytes:
    """What our own tools refuse to sign, signed by a key that is trusted."""
    from exequatur.release.file import BundleFile
    from exequatur.statements.jws import sign
    from exequatur.statements.models import Release

    file = BundleFile(content)
    digest = file.open("x").source.digest
    release = Release(
        iss=team.issuer, iat=0.0, name="policies", bundle=file.address, digest=digest, sequence=sequence, share=share
    )
    return BundleFile(content, (sign(release, team.key).text,)).to_bytes()


@pytest.mark.rule("J31")
@pytest.mark.parametrize("bad", [name for name in BAD if name not in ("replayed", "a canary")])
def test_a_bad_canary_does_not_hold_up_the_stable_bundle(
    bad: str, worker, shelf: Server, team: PolicyTeam, tmp_path: Path, now: float, caplog
):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url())
    w.start()
    shelf.files[CANARY] = BAD[bad](team, PolicyTeam(tmp_path, "mallory"), now)
    shelf.files[PATH] = team.released(policies("two"), 2)
    with caplog.at_level(logging.WARNING):
        w.look()
        w.look()
    assert (w.in_force, w.refusals) == ("two", [])
    assert sum("is left aside" in message for message in caplog.messages) == 1


@pytest.mark.rule("J31")
def test_a_canary_that_does_not_parse_does_not_hold_up_the_stable_bundle(worker, shelf: Server, team: PolicyTeam):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url())
    w.start()
    shelf.files[CANARY] = _signed_anyway(team, made().content.replace(b"permit(", b"permit "), 9, share=100)
    shelf.files[PATH] = team.released(policies("two"), 2)
    w.look()
    assert (w.in_force, w.refusals) == ("two", [])


@pytest.mark.rule("J31")
def test_a_canary_in_force_stays_when_its_file_goes_bad(worker, shelf: Server, team: PolicyTeam):
    shelf.files = {PATH: team.released(policies("one"), 1), CANARY: team.released(policies("two"), 2, share=100)}
    w = worker(shelf.url())
    w.start()
    assert w.release == ("canary", 2)
    shelf.bad[CANARY] = status(500)
    w.look()
    assert (w.release, len(w.refusals)) == (("canary", 2), 1)
    shelf.files[PATH] = team.released(policies("three"), 3)
    w.look()
    assert w.release == ("stable", 3), "a newer stable bundle ends it"


@pytest.mark.rule("J31")
def test_a_canary_that_ends_makes_way_for_the_stable_bundle(worker, shelf: Server, team: PolicyTeam, now: float):
    canary = team.release(made(policies("two")), 2, share=100, expires=float(int(now + 60)))
    shelf.files = {PATH: team.released(policies("one"), 1), CANARY: canary.to_bytes()}
    w = worker(shelf.url())
    w.start()
    assert w.release == ("canary", 2)
    w.source._clock = lambda: now + 61  # type: ignore[attr-defined]
    w.look()
    assert (w.release, w.refusals) == (("stable", 1), [])


def test_a_stable_bundle_that_ends_is_reported_once_and_stays_until_there_is_another(
    worker, team: PolicyTeam, tmp_path: Path, now: float
):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.release(made(policies("one")), 1, expires=float(int(now + 60))).to_bytes())
    w = worker(path)
    w.start()
    w.source._clock = lambda: now + 61  # type: ignore[attr-defined]
    w.look()
    w.look()
    assert (w.in_force, len(w.refusals)) == ("one", 1)
    path.write_bytes(team.released(policies("two"), 2))
    w.look()
    assert w.in_force == "two"


@pytest.mark.rule("J6")
def test_an_older_bundle_that_is_put_back_is_refused_after_a_restart_too(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    older = team.released(policies("older"), 1)
    path.write_bytes(older)
    worker(path).start()
    path.write_bytes(team.released(policies("newer"), 2))
    worker(path).start()
    path.write_bytes(older)
    with pytest.raises(PolicyError, match="older than release 2"):
        worker(path).start()
    path.write_bytes(team.released(policies("older"), 3))
    assert worker(path).start().provenance.sequence == 3


@pytest.mark.rule("J22")
def test_a_worker_does_not_start_when_what_was_released_before_is_damaged(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    (w.state / MARKS_NAME).write_text("{")
    with pytest.raises(PolicyError, match="is damaged"):
        worker(path).start()


@pytest.mark.rule("J23")
def test_a_release_that_cannot_be_remembered_is_not_adopted(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    (w.state / MARKS_NAME).unlink()
    (w.state / MARKS_NAME).mkdir()
    path.write_bytes(team.released(policies("two"), 2))
    w.look()
    assert (w.in_force, len(w.refusals)) == ("one", 1)


@pytest.mark.rule("J32")
@pytest.mark.parametrize("trouble", ["away", "404", "garbage", "another key"])
def test_a_worker_starts_with_what_it_adopted_while_the_server_is_in_trouble(
    trouble: str, worker, shelf: Server, team: PolicyTeam, tmp_path: Path, caplog
):
    shelf.files[PATH] = team.released(policies("one"), 1)
    first = worker(shelf.url())
    first.start()
    where = shelf.url()
    if trouble == "away":
        shelf.bad[PATH] = status(503)
    elif trouble == "404":
        shelf.files.clear()
    elif trouble == "garbage":
        shelf.files[PATH] = b"garbage"
    else:
        shelf.files[PATH] = PolicyTeam(tmp_path, "mallory").released(policies("bad"), 9)
    w = worker(where)
    w.start()
    assert (w.in_force, w.release, len(w.refusals)) == ("one", ("stable", 1), 1)
    assert "adopted before" in caplog.text
    shelf.bad.clear()
    shelf.files[PATH] = team.released(policies("two"), 2)
    w.look()
    assert w.in_force == "two"
    assert (w.state / CACHE_NAME).stat().st_mode & 0o777 == 0o700


@pytest.mark.rule("J32")
def test_what_was_kept_is_verified_like_any_other_file(worker, shelf: Server, team: PolicyTeam):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url())
    w.start()
    kept = w.state / CACHE_NAME / "policies.bundle"
    older = kept.read_bytes()
    shelf.files[PATH] = team.released(policies("two"), 2)
    w.look()
    shelf.bad[PATH] = status(503)
    for data, why in (
        (older, "older than"),
        (kept.read_bytes()[:-9], "not a whole"),
        (made().to_bytes(), "not signed"),
    ):
        kept.write_bytes(data)
        with pytest.raises(PolicyError, match=why) as raised:
            worker(shelf.url()).start()
        assert "503" in str(raised.value)


def test_a_worker_that_never_adopted_anything_does_not_start_without_the_server(worker, shelf: Server):
    shelf.bad[PATH] = status(503)
    with pytest.raises(PolicyError, match="answers 503"):
        worker(shelf.url()).start()
    shelf.bad.clear()
    with pytest.raises(PolicyError, match="holds no stable bundle"):
        worker(shelf.url()).start()


def test_a_canary_is_kept_with_its_stable_bundle_and_forgotten_with_it(worker, shelf: Server, team: PolicyTeam):
    shelf.files = {PATH: team.released(policies("one"), 1), CANARY: team.released(policies("two"), 2, share=100)}
    w = worker(shelf.url())
    w.start()
    shelf.bad = {PATH: status(500), CANARY: status(500)}
    again = worker(shelf.url())
    again.start()
    assert again.release == ("canary", 2)
    shelf.bad.clear()
    del shelf.files[CANARY]
    again.look()
    assert again.release == ("stable", 1)
    shelf.bad = {PATH: status(500), CANARY: status(500)}
    assert worker(shelf.url()).start().provenance.channel == "stable"


def test_what_cannot_be_kept_is_in_force_all_the_same(worker, shelf: Server, team: PolicyTeam, caplog):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url())
    (w.state / CACHE_NAME).write_text("in the way")
    w.start()
    assert w.in_force == "one"
    assert "not kept" in caplog.text


@pytest.mark.rule("J33")
def test_a_key_that_is_taken_out_of_the_file_releases_nothing_more(worker, team: PolicyTeam, tmp_path: Path):
    path, second = tmp_path / "policies.bundle", PolicyTeam(tmp_path, "second")
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    shutil.copy(second.keys, team.keys)
    path.write_bytes(team.released(policies("two"), 2))
    w.look()
    assert (w.in_force, len(w.refusals)) == ("one", 1)
    path.write_bytes(second.released(policies("three"), 3))
    w.look()
    assert w.in_force == "three"


def test_a_server_is_asked_once_an_interval(worker, shelf: Server, team: PolicyTeam):
    shelf.files[PATH] = team.released(policies("one"), 1)
    w = worker(shelf.url(), policy_fetch_interval="1h")
    w.start()
    for _ in range(10):
        w.look()
    assert len(shelf.requests()) == 1


def test_what_was_refused_for_the_clock_is_looked_at_again(worker, team: PolicyTeam, tmp_path: Path, monkeypatch, now):
    path = tmp_path / "policies.bundle"
    path.write_bytes(team.released(policies("one"), 1))
    w = worker(path)
    w.start()
    path.write_bytes(team.release(made(policies("two")), 2, now=now + 100).to_bytes())
    w.look()
    assert (w.in_force, len(w.refusals)) == ("one", 1)
    w.source._clock = lambda: now + 200  # type: ignore[attr-defined]
    w.look()
    assert w.in_force == "one"
    monkeypatch.setattr(folder_module, "_RETRY", 0.0)
    w.look()
    assert w.in_force == "two"


# What may be followed at all


@pytest.mark.rule("J41")
def test_with_policy_keys_a_folder_that_nobody_signed_is_refused(worker, tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "main.cedar").write_text(PERMIT)
    with pytest.raises(PolicyError, match="policy build"):
        worker(tmp_path / "folder").start()


@pytest.mark.rule("J42")
@pytest.mark.parametrize("where", ["https://host/policies.bundle", "http://host/x", "store:x.db", "postgresql://h/d"])
def test_without_policy_keys_nothing_from_a_server_or_a_database_is_followed(worker, where: str):
    with pytest.raises(ConfigurationError, match="policy_keys"):
        worker(where, policy_keys=None).start()


def test_the_evidence_store_of_the_settings_can_be_meant(worker, team: PolicyTeam, tmp_path: Path):
    path = str(tmp_path / "evidence.db")
    with pytest.raises(ConfigurationError, match="evidence_store"):
        worker("store:").start()
    place_of(f"store:{path}", "policies", create=True).write("stable", team.released(policies("one"), 1), anything)
    w = worker("store:", evidence_store=path)
    w.start()
    assert w.in_force == "one"


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "No such file"), ("{", "not a JWK set"), ('{"keys": []}', "no policy key"), ("x" * 2_000_000, "larger")],
)
def test_policy_keys_that_cannot_be_used_are_refused_at_the_start(worker, tmp_path: Path, text: str | None, said: str):
    keys = tmp_path / "keys.jwks"
    if text is not None:
        keys.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        worker(tmp_path / "policies.bundle", policy_keys=str(keys)).start()


def test_a_bundle_file_without_policy_keys_is_as_good_as_a_folder(worker, team: PolicyTeam, tmp_path: Path):
    path = tmp_path / "policies.bundle"
    path.write_bytes(made(policies("one")).to_bytes())
    w = worker(path, policy_keys=None)
    w.start()
    assert isinstance(w.source, UnverifiedBundle)
    assert (w.in_force, w.release) == ("one", ("stable", None))
    path.write_bytes(team.released(policies("two"), 7))
    w.look()
    assert (w.in_force, w.release) == ("two", ("stable", None)), "nobody verified its release"
    path.write_bytes(b"garbage")
    w.look()
    assert (w.in_force, len(w.refusals)) == ("two", 1)


def test_which_source_is_meant_follows_from_what_is_there(worker, team: PolicyTeam, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "policies.bundle").write_bytes(team.released(policies("one"), 1))

    def opened(where: Path, **settings: Any) -> PolicySource:
        w = worker(where, **settings)
        return open_policies(w.where, w.settings, state_dir=w.state, worker="w")

    assert isinstance(opened(folder), ReleasedBundle)
    assert isinstance(opened(folder, policy_keys=None), UnverifiedBundle)
    (folder / "main.cedar").write_text(PERMIT)
    assert isinstance(opened(folder, policy_keys=None), PolicyFolder)
    assert isinstance(opened(tmp_path / "missing", policy_keys=None), PolicyFolder)
    assert isinstance(opened(tmp_path / "missing.bundle", policy_keys=None), UnverifiedBundle)


def test_a_bundle_that_is_no_regular_file_is_refused(worker, tmp_path: Path):
    os.mkfifo(tmp_path / "policies.bundle")
    with pytest.raises(PolicyError, match="regular file"):
        worker(tmp_path / "policies.bundle").start()
