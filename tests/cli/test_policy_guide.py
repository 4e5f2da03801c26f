"""What ``docs/policies.md`` shows works as it stands there: from an empty folder to a released, tested bundle."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NAMED = re.compile(r"`(policies/[\w./-]+)`[^`]*?\n\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
#: Needs a server and a worker; tests/gate/test_releases.py and tests/cli/test_policy_diff.py have both.
ELSEWHERE = ("temporal ", "EXEQUATUR_POLICY_KEYS=", "exequatur policy explain --workflow")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "workflows", tmp_path / "workflows", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "policies", tmp_path / "policies.reference")
    (tmp_path / "policies").mkdir()
    (tmp_path / "released").mkdir()
    (tmp_path / ".exequatur").mkdir()
    return tmp_path


def commands() -> list[str]:
    joined = "\n".join(text for kind, text in BLOCK.findall(GUIDE) if kind == "sh").replace("\\\n", " ")
    lines = [line.partition("  #")[0].strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith(ELSEWHERE) and "--against" not in line]


def run(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    arguments = command.replace("exequatur ", f'"{sys.executable}" -m exequatur.cli.main ', 1)
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH")]))}
    return subprocess.run(
        arguments, shell=True, cwd=project, env=here, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_guide_leads_from_an_empty_folder_to_a_released_bundle(project: Path) -> None:
    files = dict(NAMED.findall(GUIDE))
    assert {"policies/refunds.cedar", "policies/entities.json", "policies/tests/refunds.yaml"} <= files.keys()
    for name, text in files.items():
        file = project / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    done = [command.split()[2] for command in commands()]
    assert {"schema", "check", "fmt", "test", "explain", "keygen", "build", "sign", "verify", "push", "diff"} <= set(
        done
    )
    for command in commands():
        ended = run(project, command)
        # Two folders that differ are what `diff` is shown with.
        assert ended.returncode == (1 if " diff " in command else 0), (command, ended.stdout, ended.stderr)
    assert (project / "released" / "policies.bundle").is_file()


def test_the_guide_shows_what_the_commands_say(project: Path) -> None:
    shown = "".join(text for kind, text in BLOCK.findall(GUIDE) if kind == "text")
    run(project, "exequatur policy schema --from workflows.activities")
    (project / "policies" / "refunds.cedar").write_text(
        'permit (principal in Role::"operations", action == Action::"refund_order", resource)\n'
        'when { context.args.refund.amuont.greaterThan(decimal("500.00")) };\n'
    )
    said = run(project, "exequatur policy check").stdout
    expected = [line for line in shown.splitlines() if "unknown-argument" in line or "did you mean" in line]
    assert len(expected) == 2
    for line in expected:
        assert line in said
