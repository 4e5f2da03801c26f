"""An evidence store on each of the two databases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from exequatur.lineage.store import EvidenceStore
from tests.lineage.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """The PostgreSQL server of this session."""
    with Postgres() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where a new store may be, on either database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'evidence.db'}"
        return
    server: Postgres = request.getfixturevalue("postgres")
    with server.database() as empty:
        yield empty


@pytest.fixture
def store(url: str) -> Iterator[EvidenceStore]:
    """A new store on either database."""
    with EvidenceStore.open(url) as opened:
        yield opened
