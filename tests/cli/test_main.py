"""Every failure ends with one line and exit code 2, an interruption with 130, and neither reads as a verdict."""

import signal
import socket
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

import exequatur.cli.auditing
from exequatur.cli.main import commands
from exequatur.errors import ExequaturError
from tests import record
from tests.cli.conftest import command, environment

HISTORY = str(record.HISTORIES / "sequential.json")
TRUST = str(record.TRUST)


def invoked(*args: str) -> Result:
    return CliRunner().invoke(commands, args)


@pytest.mark.parametrize("args", [[], ["audit"], ["evidence"]])
def test_help_lists_the_commands(args):
    result = invoked(*args, "--help")
    assert result.exit_code == 0
    assert "Commands:" in result.output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["audit", "file", HISTORY], "Missing option '--trust'"),
        (["audit", "file", HISTORY, "--trust", "nowhere.jwks"], "nowhere.jwks: No such file"),
        (["audit", "file", HISTORY, "--trust", HISTORY], "sequential.json"),
        (["audit", "file", HISTORY, "--trust", TRUST, "--html", "/nowhere/report.html"], "there is no such folder"),
        (["audit", "file", HISTORY, "--trust", TRUST, "--witnesses", "2"], "names 0; add their keys"),
        (["audit", "file", HISTORY, "--trust", TRUST, "--converter", "nowhere:codec"], "cannot be imported"),
        (["audit", "file", HISTORY, "--trust", TRUST, "--converter", "json:dumps"], "DataConverter"),
        (["audit", "file", HISTORY, "--trust", TRUST, "--converter", "json"], "MODULE:NAME"),
        (["audit", "replay", HISTORY, "--trust", TRUST, "--workflows", "json"], "no class with @workflow.defn"),
        (["audit", "replay", HISTORY, "--trust", TRUST, "--workflows", ","], "names no module"),
        (["audit", "replay", HISTORY, "--trust", TRUST, "--workflows", "json:nothing"], "json has no nothing"),
        (["audit", "run", "w", "--trust", TRUST, "--address", "127.0.0.1:1"], "127.0.0.1:1: cannot connect"),
        (["audit", "run", "w", "--trust", TRUST, "--tls-cert", TRUST], "--tls-cert and --tls-key go together"),
        (["evidence", "list", "/nowhere/store.db"], "/nowhere/store.db"),
        (["evidence", "prune", "store.db", "--before", "yesterday"], "not a time"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, expected):
    result = invoked(*args)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert result.stdout == ""
    assert len([line for line in result.stderr.splitlines() if line.startswith("Error: ")]) == 1


def test_evidence_that_is_not_there_is_said_to_be_so(tmp_path):
    result = invoked("audit", "file", HISTORY, "--trust", TRUST, "--evidence", str(tmp_path / "nothing"))
    assert result.exit_code == 2
    assert "nothing" in result.stderr


@pytest.mark.parametrize("error", [RuntimeError, ExequaturError, RecursionError, MemoryError, ValueError])
def test_what_nobody_expected_is_exit_code_2_and_acts_on_no_terminal(monkeypatch, error):
    def broken(path: Path) -> None:
        raise error("boom\x1b[31m\nError: all verified")

    monkeypatch.setattr(exequatur.cli.auditing, "read_trust", broken)
    result = invoked("audit", "file", HISTORY, "--trust", TRUST)
    assert result.exit_code == 2
    assert r"boom\x1b[31m\nError: all verified" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_interruption_is_130(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the connection and never answers
        silent.settimeout(60)
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        # What runs in the background may have been told to ignore interruptions, and hands that on.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        process = subprocess.Popen(
            command("audit", "run", "w", "--trust", TRUST, "--address", address),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(),
        )
        signal.signal(signal.SIGINT, before)
        try:
            connection, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
            connection.close()
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 130
    assert (out, err) == (b"", b"Interrupted\n")


def test_a_reader_that_goes_away_is_no_verdict(tmp_path):
    process = subprocess.Popen(
        command("audit", "file", *[HISTORY] * 3, "--trust", TRUST, "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) == 2
    assert err == b""


def test_a_terminal_that_cannot_show_a_character_shows_its_escape(tmp_path):
    process = subprocess.run(
        command("audit", "file", str(tmp_path / "№.json"), "--trust", TRUST),
        capture_output=True,
        env=environment(PYTHONIOENCODING="ascii"),
        timeout=60,
        check=False,
    )
    assert process.returncode == 2
    assert rb"\u2116.json" in process.stdout
    assert process.stderr == b""


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_history_or_trust_file_is_never_verified_and_never_unexpected(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    arguments = {"history": HISTORY, "trust": TRUST}
    name = data.draw(st.sampled_from(sorted(arguments)))
    content = bytearray(Path(arguments[name]).read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    damaged = folder / "damaged.json"
    damaged.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 1, 0]))])
    arguments[name] = str(damaged)
    result = invoked("audit", "file", arguments["history"], "--trust", arguments["trust"])
    assert result.exit_code in {1, 2}  # without its evidence not even the sound one is verified
    assert "Error: unexpected" not in result.stderr  # what nobody foresaw begins so
