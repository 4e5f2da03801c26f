"""What the demo page shows: an application that says which inputs it takes and what it does with them.

The console knows no application; ``--demo MODULE:NAME`` names one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from temporalio.converter import DataConverter

from exequatur.console.sandbox.limits import SandboxError
from exequatur.errors import ConfigurationError
from exequatur.identity.principal import Principal
from exequatur.modules import named

Value: TypeAlias = str | int | Decimal

_LONGEST = 200
"""Characters of an input as it arrives."""


@dataclass(frozen=True)
class Choice:
    """One of the values that an input can have."""

    value: str
    label: str


@dataclass(frozen=True)
class Input:
    """One thing that a visitor fills in.

    Args:
        name: Its key.
        label: What the form calls it.
        kind: ``choice``, ``amount`` (a decimal number with at most two digits behind the point), ``whole`` or ``text``.
        default: What stands there at first, as text.
        choices: Of a choice.
        least: Smallest number, or fewest characters.
        most: Largest number, or most characters.
        hint: A sentence below it.
        only: The name of a choice, and its values with which this input is asked for; always where there is none.
    """

    name: str
    label: str
    kind: Literal["choice", "amount", "whole", "text"]
    default: str
    choices: tuple[Choice, ...] = ()
    least: Decimal | int = 0
    most: Decimal | int = 0
    hint: str = ""
    only: tuple[str, tuple[str, ...]] | None = None

    def read(self, raw: object) -> Value:
        """The value that was filled in.

        Raises:
            SandboxError: It is none of those that it can have.
        """
        if not isinstance(raw, str) or len(raw) > _LONGEST or not raw.isprintable():
            raise self._wrong("is not a line of text")
        text = raw.strip()
        if self.kind == "choice":
            if text not in {each.value for each in self.choices}:
                raise self._wrong("is none of the choices")
            return text
        if self.kind == "text":
            if not self.least <= len(text) <= self.most:
                raise self._wrong(f"must have {self.least} to {self.most} characters")
            return text
        number = self._number(text)
        if not self.least <= number <= self.most:
            raise self._wrong(f"must be from {self.least} to {self.most}")
        return number

    def _number(self, text: str) -> Decimal | int:
        try:
            if not text.isascii() or "_" in text:
                raise ValueError
            number = Decimal(text) if self.kind == "amount" else int(text)
            if isinstance(number, Decimal) and (not number.is_finite() or number != round(number, 2)):
                raise ValueError
        except (ValueError, InvalidOperation):
            wanted = "a number such as 42.50" if self.kind == "amount" else "a whole number"
            raise self._wrong(f"must be {wanted}") from None
        return number

    def _wrong(self, what: str) -> SandboxError:
        return SandboxError(f"{self.label} {what}.", "input", self.name)


@dataclass(frozen=True)
class Example:
    """Inputs that show something, and what that is."""

    label: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Edit:
    """A change of the policies that shows something.

    Args:
        label: What it is.
        file: Of the policies.
        changes: Texts that are replaced wherever they stand, each with the text in its place.
    """

    label: str
    file: str
    changes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Step:
    """An activity that a run will ask for.

    Args:
        activity: Its type.
        title: What it does, in a few words.
    """

    activity: str
    title: str


@dataclass(frozen=True)
class Planned:
    """A run as it is asked for.

    Args:
        title: What it is, in a few words.
        workflow: Its type.
        argument: Its only argument.
        principal: On whose behalf.
        steps: What it will do, in order, as long as nothing fails.
    """

    title: str
    workflow: str
    argument: Any
    principal: Principal
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Fact:
    """Something that activities change, as a visitor sees it.

    Args:
        label: What it is.
        value: How it is now.
    """

    label: str
    value: str


@dataclass(frozen=True)
class Program:
    """What a worker of the application runs.

    Args:
        workflows: The classes.
        activities: The functions; those that are not ``async`` run in threads.
    """

    workflows: Sequence[type]
    activities: Sequence[Callable[..., Any]]


@runtime_checkable
class Application(Protocol):
    """An application that can be tried out. Its methods may block; each gets a folder that nobody else has."""

    title: str
    about: str
    inputs: tuple[Input, ...]
    examples: tuple[Example, ...]
    edits: tuple[Edit, ...]
    policies: Path
    """A policy folder."""
    files: tuple[str, ...]
    """Its ``*.cedar`` files that visitors see and edit, in the order in which they are shown."""
    approver: Principal | None
    """Who answers when a policy asks people, if anybody does."""
    converter: DataConverter

    def program(self, folder: Path) -> Program:
        """Make the application with data of its own in a folder that is empty."""
        ...

    def plan(self, values: Mapping[str, Value]) -> Planned:
        """What a run does with these inputs."""
        ...

    def facts(self, folder: Path) -> Sequence[Fact]:
        """What the activities of the program in this folder have done so far."""
        ...


def application_of(reference: str) -> Application:
    """The application that ``MODULE:NAME`` names.

    Raises:
        ConfigurationError: It cannot be imported, or is none.
    """
    try:
        found = named(reference)
    except ConfigurationError as error:
        raise ConfigurationError(f"--demo {error}") from error
    if isinstance(found, type) or not isinstance(found, Application):
        raise ConfigurationError(f"--demo {reference}: it is no application that a demo can show; see docs/console.md")
    return found


def read_inputs(application: Application, given: object) -> dict[str, Value]:
    """Read what a visitor filled in.

    Args:
        application: Whose inputs they are.
        given: From outside: anything.

    Returns:
        A value for each input; one that was not asked for has its default.

    Raises:
        SandboxError: One is missing, unknown or wrong; it is named.
    """
    if not isinstance(given, Mapping):
        raise SandboxError("The inputs are not an object with a value for each name.", "input")
    known = {each.name for each in application.inputs}
    if any(name not in known for name in given):
        raise SandboxError("There is an input that this application does not have. Load the page again.", "input")
    values: dict[str, Value] = {}
    for each in application.inputs:
        asked = each.only is None or values.get(each.only[0]) in each.only[1]
        values[each.name] = each.read(given.get(each.name, each.default) if asked else each.default)
    return values
