"""What to do about a worker that can authorize nothing, by the cause that it names (rules U of
:mod:`exequatur.gate.gate`)."""

from __future__ import annotations

from exequatur.integrity.guard import ALTERED

CLOCK = "the clock shows"
REVOKED = "this worker has been revoked"

_STEPS = (
    (CLOCK, "Synchronize that machine's clock (NTP); the worker goes on by itself."),
    (
        "the evidence journal cannot be written",
        "Make room on its disk, and see that its state folder is its user's; the worker goes on by itself.",
    ),
    (
        "it is not known what is revoked",
        "See whether the revocation feed can be read: its folder or database, or the authority that it comes from.",
    ),
    (ALTERED, "Find out who changed it, put it right, and start the worker again: this process takes no more work."),
    ("it is not known whether this worker is", "Make what the line names readable; the worker looks again by itself."),
    ("it has not been known in time", "See whether the machine is overloaded; the worker looks again by itself."),
    (
        REVOKED,
        "If that is over, lift the revocation: exequatur revoke --list, then --lift. If not, stop the worker.",
    ),
    ("there are no policies yet", "Release a bundle where the worker looks for it, or correct what it names."),
    ("the release of policy bundle", "Release it again: exequatur policy sign, then push."),
    ("this worker has no credential", "See whether it reaches its authority, and whether the policies let it enrol."),
    ("this worker's credential has ended", "See whether it reaches its authority, and whether it was revoked."),
)


def step_for(unavailable: str) -> str:
    """What to do next.

    Args:
        unavailable: Why nothing can be authorized, as the worker says it.
    """
    for beginning, step in _STEPS:
        if unavailable.startswith(beginning):
            return step
    return "Remove the cause; the worker goes on by itself."
