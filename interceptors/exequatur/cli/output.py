"""Where a report goes, and with which exit code."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click

from exequatur.audit.report import Report, Severity
from exequatur.audit.wording import all_findings
from exequatur.errors import ConfigurationError


@dataclass(frozen=True)
class Output:
    """What was asked for.

    Args:
        as_json: JSON on standard output instead of text.
        html: A page besides.
        strict: Whether what is unproven counts as not checked.

    Raises:
        ConfigurationError: The page could not be written; said before the work, not after it.
    """

    as_json: bool
    html: Path | None
    strict: bool

    def __post_init__(self) -> None:
        if self.html is not None and not self.html.absolute().parent.is_dir():
            raise ConfigurationError(f"--html {self.html}: there is no such folder; make it first")

    def write(self, report: Report) -> int:
        """Write the report.

        Returns:
            The exit code.
        """
        if self.html is not None:
            from exequatur.audit.page import render_html

            self.html.write_text(render_html(report), "utf-8")
        if self.as_json:
            from exequatur.audit.document import to_json

            click.echo(to_json(report), nl=False)
        else:
            from rich.console import Console

            from exequatur.audit.terminal import print_report

            print_report(report, Console(file=sys.stdout))
        code = report.verdict.exit_code
        if self.strict and code == 0 and any(each.severity is Severity.UNPROVEN for each in all_findings(report)):
            click.echo("With --strict, what is unproven counts as not checked", err=True)
            return 2
        return code
