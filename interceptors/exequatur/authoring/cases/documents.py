"""A YAML or JSON document whose every value knows where it stands.

Rules:

D1  A document holds mappings with unique names, lists and plain values, nothing else: no tags, no second document, no
    name that is itself a mapping or a list.
D2  It is bounded: bytes, depth, and the number of values, each counted as often as aliases repeat it.
D3  A plain value is null, true or false, a number as JSON writes it, or else a string. The guesses of older YAML are
    not made: ``no`` is no boolean, ``12:30`` and ``010`` are no numbers, and a date is a string.
D4  Every refusal names line and column, and no text ends in another exception.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal, NoReturn

from exequatur.errors import PolicyError
from exequatur.policy.syntax import Place

#: Some eight thousand cases; a reader in pure Python takes three seconds for it.
MAX_BYTES = 1024 * 1024
MAX_DEPTH = 48
MAX_VALUES = 200_000
#: Longer than any number that Cedar holds, and far from what Python refuses to read.
_MAX_DIGITS = 64

_JSON_WORD = re.compile(r'"(?:\\.|[^"\\])*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_NOT_JSON = frozenset({"NaN", "Infinity", "-Infinity"})
_CONSTANTS: Mapping[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and its place.

    Args:
        value: None, bool, int, float, Decimal, str, a tuple of nodes, or nodes by name.
        place: Where it stands; that of its name, if it has one.
        size: How many values it holds, itself included.
        height: How many levels lie below it.
    """

    value: Any
    place: Place
    size: int = 1
    height: int = 0

    @property
    def plain(self) -> Any:
        """The value with dicts and lists instead of nodes."""
        if isinstance(self.value, Mapping):
            return {name: member.plain for name, member in self.value.items()}
        return [item.plain for item in self.value] if isinstance(self.value, tuple) else self.value

    @property
    def kind(self) -> str:
        """What it is, for a sentence."""
        if isinstance(self.value, str):
            return "a string"
        kinds = ((Mapping, "a mapping"), (tuple, "a list"), (bool, "true or false"), (type(None), "empty"))
        return next((word for kind, word in kinds if isinstance(self.value, kind)), "a number")


def read_document(text: str, name: str) -> Node:
    """Read a document.

    Args:
        text: JSON if the name ends with ``.json``, else YAML.
        name: The file's name, for messages.

    Returns:
        Its one value.

    Raises:
        PolicyError: It is refused (D1 to D3); the message begins with file, line and column.
        ModuleNotFoundError: It is YAML, and PyYAML is not installed.
    """
    return _Reader(name, _json_events(text, name) if name.endswith(".json") else _yaml_events(text, name)).document()


def mapping(members: Mapping[str, Node], place: Place) -> Node:
    """Return a mapping of nodes as a node."""
    return _around(members, members.values(), place)


def merged(under: Node, over: Node) -> Node:
    """Return a node in which one value lies over another: mappings member by member, all else as a whole.

    An empty member takes away the one under it.
    """
    if not isinstance(under.value, Mapping) or not isinstance(over.value, Mapping):
        return over
    members = dict(under.value)
    for name, member in over.value.items():
        if name not in members:
            members[name] = member
        elif member.value is None:
            del members[name]
        else:
            members[name] = merged(members[name], member)
    return mapping(members, over.place)


def places(node: Node, name: str) -> dict[str, Place]:
    """Return where a value and all values in it stand, by dotted name: ``args.refund.amount``, ``entities[0].uid``."""
    found = {name: node.place}
    if isinstance(node.value, Mapping):
        for member_name, member in node.value.items():
            found |= places(member, f"{name}.{member_name}")
    elif isinstance(node.value, tuple):
        for index, item in enumerate(node.value):
            found |= places(item, f"{name}[{index}]")
    return found


def refuse(name: str, place: Place, sentence: str) -> NoReturn:
    """Raise a PolicyError that begins with file, line and column."""
    raise PolicyError(f"{name}:{place}: {sentence}")


@dataclass(frozen=True, slots=True)
class _Event:
    """The next thing in a document; a scalar has a text, and one in quotes is a string whatever it says."""

    kind: Literal["mapping", "list", "end", "scalar", "alias", "nothing"]
    place: Place
    text: str = ""
    in_quotes: bool = False
    anchor: str | None = None


class _Reader:
    def __init__(self, name: str, events: Iterator[_Event]) -> None:
        self._name = name
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._values = 0

    def document(self) -> Node:
        first = next(self._events)
        if first.kind == "nothing":
            refuse(self._name, first.place, "there is nothing in this file.")
        found = self._node(first, 0)
        for more in self._events:
            refuse(self._name, more.place, "a second document begins here. Keep one in a file.")  # [D1]
        return found

    def _node(self, event: _Event, depth: int) -> Node:
        # An anchor counts from its end on: nothing can hold itself.
        known = self._anchors.get(event.text) if event.kind == "alias" else None
        if depth + (known.height if known else 0) > MAX_DEPTH:  # [D2]
            refuse(self._name, event.place, f"this is nested more than {MAX_DEPTH} levels deep.")
        if known is not None:
            self._count(known.size, event.place)
            return replace(known, place=event.place)
        if event.kind == "alias":
            refuse(self._name, event.place, f"there is no anchor &{event.text[:80]} before this.")
        self._count(1, event.place)
        if event.kind == "mapping":
            found = mapping(self._members(depth), event.place)
        elif event.kind == "list":
            items = tuple(self._node(item, depth + 1) for item in self._until_end())
            found = _around(items, items, event.place)
        else:
            found = Node(self._scalar(event), event.place)
        if event.anchor is not None:
            self._anchors[event.anchor] = found
        return found

    def _members(self, depth: int) -> dict[str, Node]:
        members: dict[str, Node] = {}
        for key in self._until_end():
            if key.kind != "scalar":  # [D1]
                refuse(self._name, key.place, "this name is not a plain word. Write name: value.")
            if key.text == "<<" and not key.in_quotes:
                refuse(self._name, key.place, "<< does not merge here. Use the file's defaults, or write it out.")
            name = self._text(key)
            if name in members:  # [D1]
                before = members[name].place
                refuse(self._name, key.place, f"{name[:80]} stands here a second time; the first is at {before}.")
            members[name] = replace(self._node(next(self._events), depth + 1), place=key.place)
        return members

    def _until_end(self) -> Iterator[_Event]:
        while (event := next(self._events)).kind != "end":
            yield event

    def _count(self, values: int, place: Place) -> None:
        self._values += values
        if self._values > MAX_VALUES:  # [D2]
            refuse(self._name, place, f"from here on there are more than {MAX_VALUES} values. Split the file.")

    def _scalar(self, event: _Event) -> Any:  # D3
        text = event.text
        if event.in_quotes:  # [D3]
            return self._text(event)
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if not _NUMBER.fullmatch(text):  # [D3]
            return self._text(event)
        if len(text) > _MAX_DIGITS:  # [D2]
            refuse(
                self._name, event.place, f"this number has more than {_MAX_DIGITS} digits. Is it a string? Quote it."
            )
        if _WHOLE.fullmatch(text):
            return int(text)
        try:
            number, exact = float(text), Decimal(text)
        except ArithmeticError:  # [D4]
            refuse(self._name, event.place, "this number is too large. If it is a string, quote it.")
        # Most are what people call them, a number; what a float would change keeps its digits.
        return number if Decimal(repr(number)) == exact else exact

    def _text(self, event: _Event) -> str:
        try:
            event.text.encode()
        except UnicodeEncodeError:  # [D4]
            refuse(self._name, event.place, "this string is not valid Unicode (a lone surrogate).")
        return event.text


def _yaml_events(text: str, name: str) -> Iterator[_Event]:
    import yaml

    documents = 0
    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            place = _place(event.start_mark)
            tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
            if tag is not None:  # [D1]
                raise PolicyError(f"{name}:{place}: tags such as {tag[:80]} mean nothing here. Remove it.")
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    yield _Event("nothing", place)
            elif isinstance(event, yaml.MappingStartEvent):
                yield _Event("mapping", place, anchor=anchor)
            elif isinstance(event, yaml.SequenceStartEvent):
                yield _Event("list", place, anchor=anchor)
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                yield _Event("end", place)
            elif isinstance(event, yaml.AliasEvent):
                yield _Event("alias", place, anchor or "")
            elif isinstance(event, yaml.ScalarEvent):
                yield _Event("scalar", place, event.value, event.style is not None, anchor)
            elif isinstance(event, yaml.StreamEndEvent) and not documents:
                yield _Event("nothing", place)
    except yaml.MarkedYAMLError as error:  # [D4]
        refuse(name, _place(error.problem_mark), f"this is not YAML: {error.problem or error.context}.")
    except yaml.reader.ReaderError as error:  # [D4]
        place = _Lines(text).place(int(error.position))
        refuse(name, place, "this character is not allowed in YAML. Write it as an escape in double quotes.")
    except (ValueError, OverflowError) as error:  # [D4]
        # An escape such as "\UFFFFFFFF" or a version number beyond all bounds.
        raise PolicyError(f"{name}: this is not YAML: {error}.") from None


def _json_events(text: str, name: str) -> Iterator[_Event]:
    lines = _Lines(text)
    try:
        json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except json.JSONDecodeError as error:  # [D4]
        refuse(name, Place(error.lineno, error.colno), f"this is not JSON: {error.msg}.")
    except RecursionError:  # [D4]
        refuse(name, Place(1, 1), f"this is nested more than {MAX_DEPTH} levels deep.")
    for match in _JSON_WORD.finditer(text):
        word, place = match.group(), lines.place(match.start())
        if word in "{[":
            yield _Event("mapping" if word == "{" else "list", place)
        elif word in "}]":
            yield _Event("end", place)
        elif word[0] == '"':
            yield _Event("scalar", place, json.loads(word), in_quotes=True)
        elif word in _NOT_JSON:
            refuse(name, place, f"{word} is no number in JSON.")
        elif word not in ",:":
            yield _Event("scalar", place, word)


def _around(value: Any, members: Collection[Node], place: Place) -> Node:
    size = 1 + sum(member.size for member in members)
    return Node(value, place, size, 1 + max((member.height for member in members), default=0))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)


class _Lines:
    """Where the lines of a text begin."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> Place:
        line = bisect_right(self._starts, offset)
        return Place(line, offset - self._starts[line - 1] + 1)
