"""How unusual something is: points that add up, each with its reason. A statistic that anybody can add up by hand.

======================================================  =======
what                                                    points
======================================================  =======
an argument is unlike all that is known                 40
the activity was never seen after the one before it     30
the principal never ran the activity                    15
each denial of the principal in the last hour           10, at most 30
the last hour is far above the hours before             20
======================================================  =======

The sum counts up to 100. "Far above" is more than ten times in the last hour, and more than three times as often as in
an average hour of the twenty-three before it.
"""

from __future__ import annotations

from exequatur.lineage.event import Numbers

ARGUMENTS, TRANSITION, NOVEL, DENIAL, BURST = 40, 30, 15, 10, 20
MOST_DENIALS = 30
FEW = 10
"""As often in an hour is no burst, however seldom it was before."""
TIMES = 3
HIGHEST = 100


def score(numbers: Numbers, *, new_transition: bool, unlike: tuple[str, ...]) -> tuple[int, tuple[str, ...]]:
    """Score something that is asked.

    Args:
        numbers: What was done before.
        new_transition: The activity was never seen after the one before it.
        unlike: What is new about its arguments; empty where nothing is.

    Returns:
        0 to 100, and what that is made of.
    """
    earlier = numbers.last_day - numbers.last_hour
    # In whole numbers, so that every machine finds the same: last_hour > TIMES * earlier / 23.
    burst = numbers.last_hour > FEW and 23 * numbers.last_hour > TIMES * earlier
    denials = min(MOST_DENIALS, DENIAL * numbers.denials_last_hour)
    points = (
        (ARGUMENTS * bool(unlike), f"arguments: {'; '.join(unlike)}"),
        (TRANSITION * new_transition, "transition: never seen after the activity before it"),
        (NOVEL * numbers.novel, "novel: this principal never ran it"),
        (denials, f"denials: {numbers.denials_last_hour} in the last hour"),
        (BURST * burst, f"rate: {numbers.last_hour} in the last hour, {earlier} in the 23 hours before"),
    )
    found = tuple(f"{reason} (+{worth})" for worth, reason in points if worth)
    return min(HIGHEST, sum(worth for worth, _ in points)), found
