"""The fleet, run as a user runs it: what must hold when every part is a process of its own."""

import base64
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
_PATIENCE = 280
"""Seconds; far more than these steps take."""
_STEPS = {1: "A refund through the fleet", 9: "The fleet is audited"}
"""Those that need every part. Outage and rotation under load are in ``tests/remote/test_fleet.py``, a changed source
file in ``tests/integrity/test_worker.py``, the doctor in ``tests/cli``; ``make demo-fleet`` plays all."""


@dataclass(frozen=True)
class Played:
    """How the fleet ended."""

    folder: Path
    code: int
    out: str
    err: str

    @property
    def steps(self) -> dict[str, str]:
        """Title of each step and the verdict under it."""
        found, title = {}, ""
        for line in self.out.splitlines():
            if heading := re.match(r"^ ?\d+  (.+)$", line):
                title = heading[1]
            elif title and line.strip() in ("ok", "FAILED"):
                found[title] = line.strip()
        return found


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    folder = tmp_path_factory.mktemp("fleet")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXEQUATUR_", "COVERAGE_"))
    }
    command = [sys.executable, "-m", "workflows.fleet", "--folder", str(folder), "--only", *map(str, _STEPS)]
    fleet = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = fleet.communicate(timeout=_PATIENCE)
    finally:
        # It ends what it started when it is asked to end.
        fleet.terminate()
        fleet.wait()
    return Played(folder, fleet.returncode, out, err)


@pytest.mark.parametrize("title", _STEPS.values())
def test_a_step_of_the_fleet_goes_as_it_should(played: Played, title: str) -> None:
    assert played.steps.get(title) == "ok", f"{played.out}\n{played.err}"


def test_the_fleet_ends_well_and_leaves_no_process_behind(played: Played) -> None:
    assert played.code == 0, f"{played.out}\n{played.err}"
    running = [line for file in Path("/proc").glob("[0-9]*/cmdline") if str(played.folder) in (line := _of(file))]
    assert running == []


def test_workers_hold_no_key_of_the_authority(played: Played) -> None:
    held = sorted({path.relative_to(played.folder).parts[0] for path in played.folder.glob("*/keys/*")})

    assert held == ["authority"]
    assert list(played.folder.glob("state-worker-*/trust.jwks")) != []


def test_no_token_is_in_a_history_a_journal_or_a_log(played: Played) -> None:
    tokens = [path.read_bytes().split(b".")[2] for path in (played.folder / "issuer").glob("*.jwt")]
    places = [*played.folder.glob("histories/*"), *played.folder.glob("*/journal/*"), *played.folder.glob("logs/*")]

    assert len(tokens) >= 4
    assert len(places) >= 10
    for place in places:
        content = place.read_bytes()
        inside = [base64.b64decode(each) for each in re.findall(rb'"data": *"([^"]*)"', content)]
        assert not any(token in each for token in tokens for each in (content, *inside)), place


def _of(file: Path) -> str:
    try:
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""
