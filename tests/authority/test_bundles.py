"""Released bundles are handed to workers, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from exequatur.authority import api
from exequatur.release.web import WebPlace
from tests.authority.running import DANA, Running, running
from tests.release.parties import PERMIT, PolicyTeam

FILE = f"{api.BUNDLES_PATH}/policies.bundle"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    shelf = folder / "bundles"
    shelf.mkdir()
    (shelf / "policies.bundle").write_bytes(PolicyTeam(folder).released(PERMIT, 1))
    (shelf / "notes.txt").write_text("secret")
    (shelf / "link.bundle").symlink_to(folder / "policy-keys.jwks")
    (shelf / "folder.bundle").mkdir()
    return shelf


@pytest_asyncio.fixture(scope="module")
async def shelf(tmp_path_factory: pytest.TempPathFactory, released: Path) -> AsyncIterator[Running]:
    async with running(tmp_path_factory.mktemp("a"), config=f'bundles = "{released}"\n') as authority:
        yield authority


@pytest.mark.rule("bundles.H22")
async def test_a_released_bundle_is_handed_out(shelf: Running, released: Path) -> None:
    whole = (released / "policies.bundle").read_bytes()
    answer = await shelf.ask("GET", FILE)
    tag = answer.headers["etag"]
    assert (answer.status_code, answer.content) == (200, whole)
    same = await shelf.ask("GET", FILE, headers={"If-None-Match": f'"other", {tag}'})
    assert (same.status_code, same.content) == (304, b"")
    rest = await shelf.ask("GET", FILE, headers={"Range": "bytes=100-", "If-Range": tag})
    assert (rest.status_code, rest.content) == (206, whole[100:])
    assert rest.headers["content-range"] == f"bytes 100-{len(whole) - 1}/{len(whole)}"
    other = await shelf.ask("GET", FILE, headers={"Range": "bytes=100-", "If-Range": '"other"'})
    assert (other.status_code, other.content) == (200, whole)
    beyond = await shelf.ask("GET", FILE, headers={"Range": "bytes=99999999-"})
    assert beyond.status_code == 416
    for odd in ("bytes=-5", "bytes=5-2", "bytes=a-", "lines=1-", "bytes=1-2,4-5"):
        assert (await shelf.ask("GET", FILE, headers={"Range": odd})).content == whole


@pytest.mark.rule("bundles.H22")
async def test_another_file_has_another_tag(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    team = PolicyTeam(tmp_path)
    file = tmp_path / "b" / "policies.bundle"
    async with running(tmp_path, config='bundles = "b"\n') as authority:
        tags = []
        for sequence in (1, 2):
            file.write_bytes(team.released(PERMIT, sequence))
            tags.append((await authority.ask("GET", FILE)).headers["etag"])
        assert tags[0] != tags[1]
        file.unlink()
        assert (await authority.ask("GET", FILE)).status_code == 404


@pytest.mark.rule("bundles.H21")
@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "link.bundle",
        "folder.bundle",
        "missing.bundle",
        ".hidden.bundle",
        "..%2Fpolicies.bundle",
        "%2e%2e%2fpolicies.bundle",
        "policies.bundle%00",
        "policies.bundle%0a",
        "b%C3%BCndel.bundle",
        "x" * 160 + ".bundle",
    ],
)
async def test_nothing_else_is_handed_out(shelf: Running, name: str) -> None:
    answer = await shelf.ask("GET", f"{api.BUNDLES_PATH}/{name}")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert "secret" not in answer.text


async def test_bundles_are_for_callers_unless_the_configuration_says_otherwise(tmp_path: Path, released: Path) -> None:
    whole = (released / "policies.bundle").read_bytes()
    async with running(tmp_path, config=f'bundles = "{released}"\nbundles_for = "everybody"\n') as authority:
        assert (await authority.ask("GET", FILE, None)).content == whole
        place = WebPlace(authority.url + FILE)
        await asyncio.to_thread(place.look)
        assert place.read("stable") == whole
        assert place.read("canary") is None


async def test_an_authority_without_bundles_has_none(authority: Running) -> None:
    answer: httpx.Response = await authority.ask("GET", FILE, DANA)
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
