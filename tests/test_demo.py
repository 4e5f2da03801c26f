"""The demo, run as a user runs it."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from workflows.ledger import Ledger

ROOT = Path(__file__).resolve().parent.parent
POLICIES = ROOT / "policies"
_PATIENCE = 300
"""Seconds; far more than the demo takes."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("EXEQUATUR_", "COVERAGE_"))
    }
    return subprocess.Popen(
        [sys.executable, "-m", "workflows.demo", "--folder", str(folder), *arguments],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(demo: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = demo.communicate(timeout=_PATIENCE)
    finally:
        # The demo ends what it started when it is asked to end.
        demo.terminate()
        demo.wait()
    return demo.returncode, out, err


def command_line(file: Path) -> str:
    try:
        return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def processes_of(folder: Path, out: str) -> list[str]:
    """What still runs of a demo: its workers name its folder, its server listens where the story says."""
    if Path("/proc/self/cmdline").exists():  # `ps` is missing in small containers
        listed = [command_line(file) for file in Path("/proc").glob("[0-9]*/cmdline")]
    else:
        listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    server = re.search(r"^server  127\.0\.0\.1:(\d+)", out, re.MULTILINE)
    marks = [str(folder), *([f"--port {server[1]} "] if server else [])]
    return [line for line in listed if any(mark in line for mark in marks)]


def verdicts(out: str) -> dict[str, str]:
    """Title of each scene and the verdict under it."""
    found: dict[str, str] = {}
    title = None
    for line in out.splitlines():
        if heading := re.match(r"^ ?\d+  (.+)$", line):
            title = heading[1]
        elif title and line.strip() in ("ok", "FAILED"):
            found[title] = line.strip()
    return found


def test_the_demo_shows_every_step_and_leaves_no_process_behind(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    code, out, err = finish(start(folder))

    assert code == 0, f"{out}\n{err}"
    assert err == ""
    assert verdicts(out) == dict.fromkeys(
        (
            "A refund within the limit",
            "A refund above the limit",
            "A refund that a person agrees to",
            "A child with fewer rights",
            "An export with card numbers",
            "A deletion by an agent",
            "The same deletion by a person",
            "A running migration is revoked",
            "A policy is edited at work",
            "A broken policy edit",
            "A run without a grant",
            "A copied grant",
            "A rogue without the plugin",
            "A rogue that forges a receipt",
            "The same agent, only observed",
            "An audit of all these runs",
            "A history is edited",
        ),
        "ok",
    )
    assert "All 17 steps went as they should." in out
    assert "\x1b[" not in out, "no colour where there is no terminal"
    assert "Traceback" not in out
    story = " ".join(out.split())  # without the line breaks of a narrow terminal
    # The refusals are those that the steps are about, not others that happen to end the run too.
    assert "forbidden by policy refunds-limit: a refund above 5000.00 is not paid from here" in story
    assert "The result came without a receipt" in story
    assert "The signature of Receipt is wrong" in story
    assert "The grant is for workflow refund-allowed" in story
    assert processes_of(folder, out) == []
    assert (folder / "histories" / "refund-allowed.json").is_file()
    assert list((folder / "state" / "journal").glob("*.db"))
    # The audit says of each unauthorized run what is wrong with it, and so does its page.
    for found in ("refund-by-rogue: receipt-missing", "refund-by-forger: receipt-invalid", "run-ungoverned"):
        assert found in story
    assert "The arguments are not those that were requested" in story
    page = (folder / "audit.html").read_text()
    assert "Violations found" in page
    assert all(f"{path.stem}" in page for path in (folder / "histories").glob("*.json"))
    assert (POLICIES / "refunds.cedar").read_text() == (folder / "policies" / "refunds.cedar").read_text()


def test_a_demo_whose_policies_lack_the_limit_fails_and_names_the_steps(tmp_path: Path) -> None:
    policies, folder = tmp_path / "policies", tmp_path / "demo"
    policies.mkdir()
    for file in filter(Path.is_file, POLICIES.iterdir()):
        text = file.read_text()
        (policies / file.name).write_text(re.sub(r'decimal\("5000?\.00"\)', 'decimal("100000.00")', text))

    code, out, err = finish(start(folder, "--policies", str(policies)))

    assert code == 1, f"{out}\n{err}"
    assert verdicts(out)["A refund within the limit"] == "ok"
    assert verdicts(out)["A refund above the limit"] == "FAILED"
    assert "   A refund above the limit: completed; ledger CHANGED" in out
    assert processes_of(folder, out) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path: Path, number: signal.Signals) -> None:
    folder = tmp_path / "demo"
    demo = start(folder, "--keep")
    deadline = time.monotonic() + _PATIENCE
    log = folder / "logs" / "worker.log"
    while demo.poll() is None and not (log.exists() and log.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.05)

    demo.send_signal(number)
    code, out, err = finish(demo)

    assert code == 130, f"{out}\n{err}"
    assert "Traceback" not in err
    assert processes_of(folder, out) == []


def test_a_demo_that_is_kept_shows_its_runs_in_the_console(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    demo = start(folder, "--keep")
    deadline = time.monotonic() + _PATIENCE
    log, link, page, sandbox = folder / "logs" / "console.log", None, "", ""
    story, approvals, refunds = "", "", list[tuple[str, Decimal]]()
    waiting = ("o-1002", Decimal("800.00"))
    try:
        while demo.poll() is None and link is None and time.monotonic() < deadline:
            time.sleep(0.05)
            link = re.search(r"The console is at (http://\S+)\n", log.read_text()) if log.exists() else None
        if link is not None:
            with httpx.Client(follow_redirects=True, timeout=_PATIENCE) as client:
                assert client.get(link[1]).status_code == 200
                console = link[1].partition("/start")[0]
                while demo.poll() is None and "refund_order" not in page and time.monotonic() < deadline:
                    time.sleep(0.1)
                    page = client.get(f"{console}/governance").text
                sandbox = client.get(f"{console}/demo").text
                story = told_until(demo, "Ctrl-C ends all of it.")
                # Whoever looks first sees what is asked, and somebody else may agree.
                approvals = shows(client, f"{console}/governance/approvals", "refund-to-approve", deadline)
            refunds = Ledger(folder / "ledger.db").refunds()
            assert waiting not in refunds
            agree(re.findall(r"http://\S+/start\?token=\S+", story)[-1], deadline)
            while demo.poll() is None and waiting not in refunds and time.monotonic() < deadline:
                time.sleep(0.1)
                refunds = Ledger(folder / "ledger.db").refunds()
    finally:
        demo.send_signal(signal.SIGINT)
        code, out, err = finish(demo)

    assert link is not None, f"{out}\n{err}"
    assert code == 0, f"{story}{out}\n{err}"
    assert f"console {link[1]}" in story
    assert "refund_order" in page
    assert "Start the agent" in sandbox
    assert "All 17 steps went as they should." in story
    assert "refund-to-approve" in approvals
    assert waiting in refunds, "a worker that runs activities is left, and the approval reached the run"
    assert processes_of(folder, story) == []


def told_until(demo: subprocess.Popen[str], text: str) -> str:
    """What a demo says up to the line with this text, or until it is too late."""
    too_late = threading.Timer(_PATIENCE, demo.terminate)
    too_late.start()
    lines: list[str] = []
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            lines.append(line)
            if text in line:
                break
    finally:
        too_late.cancel()
    return "".join(lines)


def shows(client: httpx.Client, url: str, text: str, deadline: float) -> str:
    """The page, as soon as it shows a text."""
    while text not in (page := client.get(url).text) and time.monotonic() < deadline:
        time.sleep(0.1)
    return page


def agree(link: str, deadline: float) -> None:
    """Agree to what a run waits for, in the console that this link opens."""
    console = link.partition("/start")[0]
    with httpx.Client(follow_redirects=True, timeout=_PATIENCE, headers={"Origin": console}) as client:
        assert client.get(link).status_code == 200
        page = shows(client, f"{console}/governance/approvals", "refund-to-approve", deadline)
        form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))
        answered = client.post(f"{console}/governance/approvals", data={**form, "verdict": "approve"})
    assert "Your approval was signed" in answered.text


def test_the_policies_of_a_demo_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    code, _, err = finish(start(tmp_path / "demo", "--policies", str(tmp_path / "nowhere")))

    assert code == 2
    assert "nowhere" in err
    assert "Traceback" not in err
