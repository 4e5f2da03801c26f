"""A policy team, a server, and the clock."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.release.parties import PolicyTeam, Server, serving


@pytest.fixture
def team(tmp_path: Path) -> PolicyTeam:
    return PolicyTeam(tmp_path)


@pytest.fixture(scope="session")
def running_server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def shelf(running_server: Server) -> Server:
    """The server of this session, empty and on its best behaviour."""
    running_server.files, running_server.bad, running_server.asked = {}, {}, []
    return running_server


@pytest.fixture
def now() -> float:
    return time.time()
