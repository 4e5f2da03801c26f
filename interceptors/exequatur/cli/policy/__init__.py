"""``exequatur policy``: the loop of those who write policies."""

from __future__ import annotations

import click

from exequatur.cli.policy import bundle, check, diff, explain, reference, schema, shadow, shipping, test


@click.group()
def policy() -> None:
    """Write, check, test, explain, compare and ship policies."""


for _command in (
    *bundle.COMMANDS,
    *check.COMMANDS,
    *diff.COMMANDS,
    *explain.COMMANDS,
    *reference.COMMANDS,
    *schema.COMMANDS,
    *shadow.COMMANDS,
    *shipping.COMMANDS,
    *test.COMMANDS,
):
    policy.add_command(_command)
