"""``exequatur policy``: the loop of those who write policies."""

from __future__ import annotations

import click


@click.group()
def policy() -> None:
    """Write, check, test, explain, compare and ship policies."""
