"""The scenes of a demo: what each is to show, what came of it, and how they are played."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from workflows.terminal import Terminal


class Stage(Protocol):
    """Where scenes are played."""

    @property
    def terminal(self) -> Terminal: ...

    def fact(self, text: str) -> None:
        """Something that was seen to happen."""


S = TypeVar("S", bound=Stage)


@dataclass(frozen=True)
class Outcome:
    """What happened, and whether it is what should."""

    happened: str
    ok: bool


@dataclass(frozen=True)
class Scene(Generic[S]):
    """One row of the final table."""

    title: str
    expected: str
    play: Callable[[S], Awaitable[Outcome]]


async def play(stage: S, scenes: Sequence[tuple[int, Scene[S]]]) -> list[Outcome]:
    """Play numbered scenes. What breaks one in an unforeseen way ends the story: the later ones stand on it."""
    outcomes: list[Outcome] = []
    for number, scene in scenes:
        stage.terminal.heading(f"{number:2}  {scene.title}")
        try:
            outcome = await scene.play(stage)
        except Exception as err:
            logging.getLogger("workflows").exception("Scene %d broke", number)
            outcomes.append(Outcome(f"{type(err).__name__}: {err}", False))
            stage.fact(f"{type(err).__name__}: {err}")
            stage.terminal.verdict(ok=False)
            break
        outcomes.append(outcome)
        stage.terminal.verdict(outcome.ok)
    return outcomes + [Outcome("not reached", False)] * (len(scenes) - len(outcomes))
