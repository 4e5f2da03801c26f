"""``exequatur console`` as a process of its own."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys

import httpx
import pytest
from click.testing import CliRunner

from exequatur.authority.state import open_state
from exequatur.cli.main import commands
from tests.console.running import KIM, REFERENCE

COMMAND = [sys.executable, "-m", "exequatur.cli.main", "console"]


def test_the_command_prints_a_link_that_opens_the_console_and_ends_when_it_is_told_to(tmp_path):
    open_state(tmp_path / "state")
    options = ["--state", str(tmp_path / "state"), "--policies", str(REFERENCE), "--as", KIM]
    command = [*COMMAND, *options, "--listen", "127.0.0.1:0", "--address", "127.0.0.1:1"]
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=tmp_path)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("The console is at http://127.0.0.1:"), (tmp_path / "errors").read_text()
        link = line.removeprefix("The console is at ").strip()
        with httpx.Client(base_url=link.partition("/start")[0], timeout=30) as client:
            assert client.get(link).status_code == 200
            assert "User::&#34;kim&#34;" in client.get("/governance").text
        assert httpx.get(link, timeout=30).status_code == 403
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--state", "nowhere"], "no state folder of an authority"),
        (["--listen", "0.0.0.0:8400"], "is reached over a network"),
        (["--as", "kim"], "--as: 'kim' is not a Cedar entity; write it as User::\"kim\""),
        (["--as", "kim smith"], 'write it as User::"kim"'),
        (["--public", "--as", KIM], "leave out one"),
        (["--config", "nowhere.toml"], "cannot be read"),
        (["--listen", "here"], "listen"),
        (["--policies", "nowhere"], "nowhere"),
        (["--state", "nowhere", "--policies", "nowhere"], "no state folder of an authority"),
        (["--demo", "nowhere:DEMO"], "nowhere"),
        (["--converter", "nowhere:CONVERTER"], "nowhere"),
        (["--converter", "json:dumps"], "not a temporalio DataConverter"),
        (["--converter", "json"], "converter"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, monkeypatch, options, said):
    open_state(tmp_path / ".exequatur")
    monkeypatch.chdir(tmp_path)
    given = options if "--policies" in options else [*options, "--policies", str(REFERENCE)]
    ended = CliRunner().invoke(commands, ["console", *given])
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stderr


def test_a_port_that_is_taken_is_named(tmp_path):
    open_state(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        options = ["--state", str(tmp_path / "state"), "--policies", str(REFERENCE), "--listen", listen]
        ended = CliRunner().invoke(commands, ["console", *options])
    assert ended.exit_code == 2
    assert ended.stdout == ""
    [said] = ended.stderr.splitlines()
    assert said.startswith(f"Error: listen: {listen}: Address already in use; listen on another HOST:PORT; port 0")
    assert said.count(listen.rpartition(":")[2]) == 1


def test_evidence_that_is_not_there_is_said_on_the_terminal(tmp_path):
    open_state(tmp_path / "state")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = ["--state", str(tmp_path / "state"), "--policies", str(REFERENCE), "--evidence", "/nope"]
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = CliRunner().invoke(commands, ["console", *options, "--evidence", str(tmp_path), "--listen", listen])
    assert ended.stdout == ""
    warned = [each for each in ended.stderr.splitlines() if each.startswith("Warning")]
    assert warned == ["Warning: --evidence /nope: it is not there; it is followed once it is."]


def test_the_help_is_for_people():
    ended = CliRunner().invoke(commands, ["console", "--help"])
    assert ended.exit_code == 0
    for part in ("--as", "console.view", "docs/console.md", "--public"):
        assert part in ended.output
