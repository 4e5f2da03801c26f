"""``exequatur``: the commands, and how each of them ends.

Exit codes: 0 all verified or done; 1 an audit found a violation; 2 something could not be checked or done, and standard
error says what in one line; 130 interrupted. A failure is never 1, which is a verdict.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import Any

import click

from exequatur.audit.wording import shown
from exequatur.cli.approvals import approvals
from exequatur.cli.audit import audit
from exequatur.cli.authority import authority
from exequatur.cli.behavior import behavior
from exequatur.cli.checkpoint import checkpoint
from exequatur.cli.console import console
from exequatur.cli.control import control
from exequatur.cli.doctor import doctor
from exequatur.cli.evidence import evidence
from exequatur.cli.grant import grant, permit
from exequatur.cli.identity import identity
from exequatur.cli.integrity import integrity
from exequatur.cli.keys import keys
from exequatur.cli.policy import policy
from exequatur.cli.revoke import revoke
from exequatur.errors import ExequaturError

TRACEBACK = "EXEQUATUR_TRACEBACK"
INTERRUPTED = 130
_SDK = "temporalio.bridge.temporal_sdk_bridge"


class CannotCheckError(click.ClickException):
    """What ends a command with exit code 2."""

    exit_code = 2

    def format_message(self) -> str:
        return shown(self.message)


class _Root(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            click.echo("Interrupted", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read standard output has gone. What is left in the buffer must not fail once more at exit.
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(CannotCheckError.exit_code)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except ExequaturError as error:
            raise CannotCheckError(str(error)) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise CannotCheckError(f"{where}{error.strerror or error}") from error
        except ModuleNotFoundError as error:
            raise CannotCheckError(f"{error}; run: pip install 'exequatur[cli]'") from error
        except Exception as error:
            # A traceback would end with exit code 1, and that would read as a verdict.
            if os.environ.get(TRACEBACK):
                sys.excepthook(type(error), error, error.__traceback__)
            raise CannotCheckError(
                f"unexpected {type(error).__name__}: {error}; set {TRACEBACK}=1 and report what it prints"
            ) from error
        return result


@click.group(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="exequatur", message="%(prog)s %(version)s")
def commands() -> None:
    """Write policies, verify what Temporal workflows did, and keep the evidence.

    Exit codes: 0 verified or done, 1 violations found, 2 could not be checked, 130 interrupted.
    """
    # Libraries log what a command reports in its own words, or not at all.
    logging.getLogger().addHandler(logging.NullHandler())
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its escape.
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


commands.add_command(approvals)
commands.add_command(audit)
commands.add_command(authority)
commands.add_command(behavior)
commands.add_command(checkpoint)
commands.add_command(console)
commands.add_command(control)
commands.add_command(doctor)
commands.add_command(evidence)
commands.add_command(grant)
commands.add_command(identity)
commands.add_command(integrity)
commands.add_command(keys)
commands.add_command(permit)
commands.add_command(policy)
commands.add_command(revoke)


def main() -> None:
    """The entry point."""
    try:
        commands(prog_name="exequatur")
    except SystemExit as end:
        if isinstance(end.code, int | None) and _SDK in sys.modules:
            # The SDK's threads may still wait for a server, and abort when the interpreter ends before them.
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(end.code or 0)
        raise


if __name__ == "__main__":
    main()
