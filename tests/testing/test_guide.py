"""What ``docs/testing.md`` shows works as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

GUIDE = Path(__file__).parents[2] / "docs" / "testing.md"
NAMED = re.compile(r"^```(python|cedar|yaml|toml)\n(?:#|//) (\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def examples() -> dict[str, str]:
    return {name: text for _, name, text in NAMED.findall(GUIDE.read_text(encoding="utf-8"))}


def test_the_examples_of_the_guide_pass(tmp_path: Path) -> None:
    files = examples()
    assert {"shop.py", "policies/refunds.cedar", "tests/test_refunds.py", "tests/test_later.py"} <= set(files)
    for name, text in files.items():
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    # Where the package is installed, pytest has loaded the fixtures already.
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "exequatur.testing.fixtures", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    tests = sum(text.count("\nasync def test_") for text in files.values())
    assert f"{tests} passed" in done.stdout


def test_the_ci_job_is_a_workflow_that_runs_every_check() -> None:
    job = yaml.safe_load(examples()[".github/workflows/authorization.yml"])["jobs"]["authorization"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    for command in ("exequatur policy check", "exequatur policy schema", "exequatur policy test", "pytest"):
        assert any(each.startswith(command) for each in commands), command
