"""Is the gate invisible when it says yes? The SDK's own tests are the judge.

Rules:

* Every test that passes without the plugin passes with it. One that does not is run again, alone, with and without, so
  that a test that fails now and then is not held against the plugin, or for it.
* The plugin was not inert: it decided about the activities that ran, and signed receipts for them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/worker",
    "tests/test_client.py",
    "tests/test_activity.py",
    "tests/test_workflow.py",
    "tests/nexus",
)
EXCEPTIONS = ROOT / "docs" / "transparency.md"
"""Names the tests that may differ, each in backquotes, and why."""
_AGAIN = 2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.transparency", description=__doc__)
    parser.add_argument("sdk", type=Path, help="folder of the SDK's repository, of the version that is installed")
    parser.add_argument("tests", nargs="*", default=TESTS, help="what to run of it")
    parser.add_argument("--timeout", type=int, default=60, help="seconds for one test")
    parser.add_argument("--keep", type=Path, help="folder for logs and results")
    args = parser.parse_args()
    out = args.keep or Path(tempfile.mkdtemp(prefix="transparency-"))
    out.mkdir(parents=True, exist_ok=True)
    sdk = _copy(args.sdk, out)
    without, _ = _run(sdk, out, "without", args.tests, args.timeout, gated=False)
    gated, counts = _run(sdk, out, "with", args.tests, args.timeout, gated=True)
    passing = {name for name, outcome in without.items() if outcome == "passed"}
    suspects = sorted(name for name in passing if gated.get(name) != "passed")
    broken, flaky = _again(sdk, out, suspects, args.timeout)
    excused = {name for name in broken if f"`{name}`" in EXCEPTIONS.read_text(encoding="utf-8")}
    print(f"without the plugin: {_told(without)}")
    print(f"with the plugin:    {_told(gated)}")
    print(f"of {len(passing)} tests that pass without it, {len(passing) - len(broken)} pass with it")
    for name in flaky:
        print(f"  passes now and then: {name}")
    for name in broken:
        print(f"  {'named in docs/transparency.md' if name in excused else 'FAILS'}: {name}")
    print("counted with the plugin: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))
    inert = [what for what in ("executions", "requests", "receipt completed") if not counts.get(what)]
    for what in inert:
        print(f"  FAILS: the plugin saw no {what}")
    return 1 if inert or set(broken) - excused else 0


def _copy(sdk: Path, out: Path) -> Path:
    """The tests without the package beside them, which would be imported instead of the installed one."""
    copy = out / "sdk"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    shutil.copytree(sdk / "tests", copy / "tests")
    shutil.copy(sdk / "pyproject.toml", copy)
    return copy


def _run(
    sdk: Path, out: Path, name: str, tests: Sequence[str], timeout: int, *, gated: bool
) -> tuple[dict[str, str], Counter[str]]:
    """Run tests; what came of each, and what was counted."""
    report, counts = out / f"{name}.xml", out / f"{name}.json"
    command = [sys.executable, "-u", "-m", "pytest", "-p", "tests_transparency"]
    command += ["-p", "no:cacheprovider", "-p", "no:exequatur"]  # the SDK's suite needs nothing of our own plugin
    command += [f"--timeout={timeout}", f"--junitxml={report}", "-o", "junit_family=xunit1"]
    command += ["-q", "--tb=native", "--continue-on-collection-errors", *tests]
    shim = out / "shim"
    shim.mkdir(exist_ok=True)
    # The SDK's folder has a package of the same name as this one's.
    shutil.copy(Path(__file__).with_name("plugin.py"), shim / "tests_transparency.py")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(shim), str(ROOT / "interceptors")]),
        "TRANSPARENCY_COUNTS": str(counts),
        "TRANSPARENCY_GATED": "1" if gated else "0",
    }
    with (out / f"{name}.log").open("wb") as log:
        subprocess.run(command, cwd=sdk, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return _outcomes(report), Counter(json.loads(counts.read_text())) if counts.exists() else Counter()


def _outcomes(report: Path) -> dict[str, str]:
    """``passed``, ``failed`` or ``skipped`` for each test, by its node id."""
    found: dict[str, str] = {}
    if not report.exists():
        return found
    for case in ElementTree.parse(report).iter("testcase"):
        file = case.get("file") or ""
        inside = (case.get("classname") or "").removeprefix(file.removesuffix(".py").replace("/", ".")).strip(".")
        name = "::".join(part for part in (file, *inside.split("."), case.get("name") or "") if part)
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[name] = "failed" if "failed" in (outcome, found.get(name)) else outcome
    return found


def _again(sdk: Path, out: Path, suspects: Sequence[str], timeout: int) -> tuple[list[str], list[str]]:
    """Run what differed again, alone: what fails only with the plugin each time, and what does so now and then."""
    broken, flaky = [], []
    for number, name in enumerate(suspects):
        differs = []
        for again in range(_AGAIN):
            results = [
                _run(sdk, out, f"again-{number}-{again}-{gated:d}", [name], timeout, gated=gated)[0].get(name)
                for gated in (False, True)
            ]
            differs.append(results[0] == "passed" and results[1] != "passed")
        (broken if all(differs) else flaky).append(name)
    return broken, flaky


def _told(outcomes: dict[str, str]) -> str:
    counted = Counter(outcomes.values())
    return ", ".join(f"{counted[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))


if __name__ == "__main__":
    sys.exit(main())
