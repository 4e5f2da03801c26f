"""One authority service for all scenarios that do not end it, and somebody between."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from exequatur import AuthorizationPlugin, Principal, Settings
from tests.gate.conftest import Stage, executor, stage
from tests.release.parties import PolicyTeam
from tests.remote.parties import AuthorityProcess, Between, between

__all__ = ["executor", "stage"]

POLICIES = """\
@id("all") permit(principal, action, resource);
@id("no-strangers") @reason("strangers start nothing") forbid(principal == User::"stranger", action, resource);
@id("two-person") @approval("finance, 1, 4h") @reason("somebody of finance has to agree")
forbid(principal, action == Action::"pay", resource)
unless { context has approvals && context.approvals.groups.contains("finance") };
@id("no-deletion") @reason("records are kept") forbid(principal, action == Action::"delete", resource);
"""
SOON = {"unavailable_wait": "300ms", "unavailable_retry_delay": "200ms", "policy_fetch_interval": "300ms"}
"""For scenarios in which something is away for a moment."""
SHOP = Principal("Service", "shop")


@pytest.fixture(scope="session")
def team(tmp_path_factory: pytest.TempPathFactory) -> PolicyTeam:
    """Releases the policies."""
    return PolicyTeam(tmp_path_factory.mktemp("team"))


def authority_in(folder: Path, team: PolicyTeam, **settings: Any) -> AuthorityProcess:
    """An authority that hands out what the team has released."""
    authority = AuthorityProcess(folder, policies=POLICIES, settings=settings)
    (folder / "bundles" / "policies.bundle").write_bytes(team.released(POLICIES, 1))
    return authority


@pytest.fixture(scope="session")
def running_authority(tmp_path_factory: pytest.TempPathFactory, team: PolicyTeam) -> Iterator[AuthorityProcess]:
    authority = authority_in(tmp_path_factory.mktemp("authority"), team)
    authority.start()
    try:
        yield authority
    finally:
        authority.kill()


@pytest.fixture(scope="session")
def standing_between(running_authority: AuthorityProcess) -> Iterator[Between]:
    with between(running_authority.url) as middle:
        yield middle


@pytest.fixture
def middle(standing_between: Between) -> Between:
    """Passes everything on until told otherwise."""
    standing_between.clear()
    return standing_between


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The state folder of a process that holds no key."""
    return tmp_path / "worker"


@pytest_asyncio.fixture
async def own_authority(tmp_path: Path, team: PolicyTeam) -> AsyncIterator[Callable[..., AuthorityProcess]]:
    """Makes authorities that a scenario may end; they are not started yet."""
    made: list[AuthorityProcess] = []

    def make(**settings: Any) -> AuthorityProcess:
        made.append(authority_in(tmp_path / f"authority{len(made)}", team, **settings))
        return made[-1]

    yield make
    for authority in made:
        authority.kill()


@pytest.fixture
def remote(stage: Callable[..., Awaitable[Stage]], team: PolicyTeam, folder: Path) -> Callable[..., Awaitable[Stage]]:
    """Sets a stage whose authority is elsewhere: ``await remote(url, **settings)``."""

    async def set_stage(url: str, principal: Principal = SHOP, **settings: Any) -> Stage:
        given = {**SOON, "policy_keys": str(team.keys), **settings}
        plugin = AuthorizationPlugin(url, principal=principal, state_dir=folder, settings=Settings(**given))
        return await stage(plugin=plugin)

    return set_stage
