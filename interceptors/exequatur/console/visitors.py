"""Runs of the demo page's visitors, told apart by how their sandboxes name them.

A name proves nothing, and anybody who may start a workflow can choose one. So it changes words only: such a run is
listed and audited as any other.
"""

from __future__ import annotations

import re

from exequatur.console.sandbox.limits import PREFIX

_QUEUE = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{16}}\Z")


def named_as_a_visitors(workflow_id: str, queue: str) -> bool:
    """Whether a run has the names of one of a visitor's sandbox.

    Args:
        workflow_id: Its workflow id.
        queue: Its task queue.
    """
    return _QUEUE.match(queue) is not None and workflow_id.startswith(f"{queue}-")
