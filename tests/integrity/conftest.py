"""A small installation of its own: the distributions that a worker needs, hard links to those that are here.

Processes run in it with ``python -S``, so that nothing else is installed as far as they can tell.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import exequatur
from tests.gate.conftest import executor, stage

__all__ = ["executor", "stage"]

PACKAGE = Path(exequatur.__file__).resolve().parent
WANTED = ("temporalio", "cedarpy", "cryptography", "pydantic", "click", "sqlalchemy", "rich", "jinja2", "rfc8785")


@dataclass
class Installation:
    """A folder with distributions, one with sources, and processes that see nothing else."""

    site: Path
    library: Path
    """This package, as it was when the tests began."""
    path: Path

    @property
    def app(self) -> Path:
        return self.path / "app"

    @property
    def manifest(self) -> Path:
        return self.path / "manifest.dsse"

    @property
    def keys(self) -> Path:
        return self.path / "keys" / "manifest-keys.jwks"

    def environment(self, **variables: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("EXEQUATUR_", "PYTHON"))}
        return {
            **kept,
            "PYTHONPATH": os.pathsep.join(map(str, (self.site, self.path / "tiny", self.library, self.app))),
            "PYTHONDONTWRITEBYTECODE": "1",
            "SHOP_MODE": "usual",
            **variables,
        }

    def run(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run Python here, to its end."""
        return subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],
            env=self.environment(**variables),
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def command(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run ``exequatur integrity ...`` here."""
        return self.run("-m", "exequatur.cli.main", "integrity", *arguments, **variables)

    def sign(self) -> None:
        """Measure what is here, and sign it, in one process."""
        places = (self.manifest, self.keys, self.keys.parent, self.library, self.app, self.path / "shop.toml")
        done = self.run(self.app / "prepare.py", *places)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which what a worker needs is installed."""
    folder = tmp_path_factory.mktemp("site").resolve()
    for name in closure(WANTED):
        installed = distribution(name)
        for file in installed.files or ():
            source = Path(str(installed.locate_file(file))).resolve()
            if ".." in file.parts or file.suffix == ".pyc" or not source.is_file():
                continue
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                shutil.copy(source, target)
    for record in folder.glob("*.dist-info/RECORD"):  # a copy: scripts in other folders are not here
        lines = [each for each in record.read_text().splitlines() if not each.startswith("../")]
        record.unlink()
        record.write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this package, so that what is edited meanwhile does not look like tampering."""
    folder = tmp_path_factory.mktemp("library").resolve()
    shutil.copytree(PACKAGE, folder / "exequatur", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def installation(site: Path, library: Path, tmp_path: Path) -> Installation:
    """An application that can be tampered with; the distributions are shared and must stay as they are."""
    path = tmp_path.resolve() / f"here-{uuid.uuid4().hex[:6]}"
    shutil.copytree(Path(__file__).parent / "app", path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    (path / "data").mkdir()
    (path / "data" / "handler.py").write_text("")
    (path / "app" / "linked").symlink_to(path / "data")  # as Kubernetes mounts what is configured
    (path / "shop.toml").write_text("limit = 5\n")
    tiny = path / "tiny" / "tiny-1.0.dist-info"
    tiny.mkdir(parents=True)
    (tiny / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    (path / "tiny" / "tiny.py").write_text("VALUE = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"VALUE = 1\n").digest()).decode().rstrip("=")
    (tiny / "RECORD").write_text(f"tiny.py,sha256={digest},10\ntiny-1.0.dist-info/METADATA,,\n")
    return Installation(site, library, path)


def closure(names: Sequence[str]) -> set[str]:
    """Distributions and what they require here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop().lower().replace("_", "-")
        try:
            requires = distribution(name).requires or ()
        except PackageNotFoundError:
            continue
        if name in found:
            continue
        found.add(name)
        for text in requires:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def json_of(done: subprocess.CompletedProcess[str]) -> object:
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)
