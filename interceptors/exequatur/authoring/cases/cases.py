"""Policy tests: cases next to the policies, each a question and the answer that is expected.

They stand in ``<policies>/tests/*.yaml`` (or ``.yml``, ``.json``)::

    defaults:                     # under every case of the file
      principal: {uid: 'Agent::"ops-bot"', parents: ['Role::"operations"']}
      activity: refund_order
      args: {refund: {order_id: o-1, reason: arrived late}}
    cases:
      - name: a small refund
        args: {refund: {amount: 120.00}}
        expect: allow
        by: refunds-by-operations
      - name: no refund above the limit
        expect: deny
        by: refunds-limit         # exactly the policies that decide; [] where none permits
        reason: needs a person    # what the denial says
        each:                     # one case each
          - args: {refund: {amount: 500.01}}
          - {name: a very large one, args: {refund: {amount: 90000.00}}}

A case has ``principal``, ``activity``, ``args``, ``context``, ``resource``, ``now`` (:data:`NOW` if it says none) and
``entities`` (added to those of ``entities.json``; one with the same uid takes its place). ``error`` is a part of what
is said where a denial is no decision but an error.

Rules:

C1  What is not known is refused, not ignored: a misspelt ``expect`` must not make a case that passes.
C2  ``args`` and ``context`` of a case lie over those of the defaults member by member, and an empty member takes one
    away; all else replaces, so that no principal inherits another one's roles.
C3  A case that nothing is expected of, or that has the name of another one in its file, is refused.
"""

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from exequatur.authoring.cases.documents import MAX_BYTES, Node, mapping, merged, places, read_document, refuse
from exequatur.errors import PolicyError
from exequatur.policy.syntax import Place

#: The moment of a case that names none, a Monday: what passes today passes tomorrow.
NOW: Final = datetime.datetime(2026, 1, 5, 12, tzinfo=datetime.UTC)
#: The folder of the cases in a policy folder, and how their files end.
CASES_FOLDER: Final = "tests"
CASES_SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})

#: Values of all cases together, defaults and rows written out in each.
MAX_VALUES: Final = 1_000_000

_QUESTION: Final = ("principal", "activity", "args", "context", "resource", "now", "entities")
_ANSWER: Final = ("expect", "by", "reason", "error")
_FILE: Final = ("defaults", "cases")
_CASE: Final = ("name", *_QUESTION, *_ANSWER, "each")
_ROW: Final = ("name", *_QUESTION, *_ANSWER)
_MERGED: Final = frozenset({"args", "context"})
_PATH = re.compile(r"\w+(?:\.[^\s.\[\]:,;]+|\[\d+\])*")


@dataclass(frozen=True)
class Case:
    """A question with the expected answer.

    Args:
        name: What it shows; no other case of the file has it.
        file: The file's name.
        place: Where it begins.
        principal: Who asks, as :func:`exequatur.authoring.request.question` takes it; so are the next four.
        activity: The activity type.
        args: The arguments by name.
        context: What differs from the usual circumstances.
        resource: What it is done to; the workflow if None.
        now: The moment.
        entities: Entities of this case, as people write them.
        allow: Whether allow is expected.
        by: Ids of exactly the policies that decide; None if any may.
        reason: A part of the reasons of a denial.
        error: A part of the error that a denial consists in.
        places: Where its parts stand, by dotted name.
    """

    name: str
    file: str
    place: Place
    principal: Any
    activity: str
    args: Any
    context: Any
    resource: Any
    now: datetime.datetime
    entities: tuple[Any, ...]
    allow: bool
    by: tuple[str, ...] | None
    reason: str | None
    error: str | None
    places: Mapping[str, Place] = field(repr=False)

    def place_of(self, sentence: str) -> Place:
        """Return the place of the part that a sentence begins with, such as ``args.refund.amount is a string``."""
        match = _PATH.match(sentence)
        path = match.group() if match else ""
        while path:
            if path in self.places:
                return self.places[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self.place


def case_files(folder: Path) -> tuple[Path, ...]:
    """Return the files with cases of a policy folder, by name.

    Raises:
        PolicyError: There is none, or the folder cannot be read.
    """
    inside = folder / CASES_FOLDER
    try:
        found = sorted(path for path in inside.iterdir() if is_case_file(path)) if inside.is_dir() else []
    except OSError as error:
        raise PolicyError(f"{inside} cannot be read: {error.strerror}. Check its owner and mode.") from None
    if not found:
        raise PolicyError(
            f"There are no policy tests in {inside}. Write the first cases, for example {inside}/first.yaml."
        )
    return tuple(found)


def is_case_file(path: Path) -> bool:
    """Tell whether a file in a folder of cases is one with cases; hidden ones are not."""
    return path.suffix in CASES_SUFFIXES and not path.name.startswith(".")


def read_cases(path: Path) -> tuple[Case, ...]:
    """Read a file with cases.

    Raises:
        PolicyError: It cannot be read or is refused (C1 to C3); the message begins with the file, and line and column.
        ModuleNotFoundError: It is YAML, and PyYAML is not installed.
    """
    try:
        if not path.is_file():
            # A pipe would block the reader for ever.
            raise PolicyError(f"{path} is not a regular file. Replace it by one or remove it.")
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}. Check its owner and mode.") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(f"{path} is larger than {MAX_BYTES >> 20} MiB. Split it.")
    try:
        return parse_cases(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{path}:{line}: not valid UTF-8. Save the file as UTF-8.") from None


def parse_cases(text: str, file: str) -> tuple[Case, ...]:
    """Read cases from the text of a file.

    Args:
        text: JSON if the name ends with ``.json``, else YAML.
        file: The file's name, for messages.

    Returns:
        The cases, at least one.

    Raises:
        PolicyError: The text is refused (C1 to C3).
        ModuleNotFoundError: It is YAML, and PyYAML is not installed.
    """
    return _Reader(file).cases(read_document(text, file))


class _Reader:
    def __init__(self, file: str) -> None:
        self._file = file
        self._values = 0

    def cases(self, document: Node) -> tuple[Case, ...]:
        top = self._members(document, _FILE, "a file of policy tests")
        written = top.get("cases")
        if written is None:
            refuse(self._file, document.place, "there are no cases. Write them under cases:.")
        defaults = self._members(top["defaults"], _QUESTION, "defaults") if "defaults" in top else {}
        found: dict[str, Case] = {}
        for node in self._items(written, "cases"):
            for place, members in self._rows(self._members(node, _CASE, "a case"), node.place):
                case = self._case(place, _over(defaults, members))
                if case.name in found:  # [C3]
                    before = found[case.name].place
                    refuse(self._file, place, f"the case at {before} has the name {case.name!r} too. Give it another.")
                found[case.name] = case
        return tuple(found.values())

    def _rows(self, members: Mapping[str, Node], place: Place) -> Iterator[tuple[Place, dict[str, Node]]]:
        """The case, or one for each of its rows."""
        name = self._name(members.get("name"), place)
        if "each" not in members:
            yield place, dict(members)
            return
        own = {key: member for key, member in members.items() if key not in {"each", "name"}}
        for index, row in enumerate(self._items(members["each"], "each"), 1):
            cells = self._members(row, _ROW, "a row")
            inner = self._name(cells["name"], row.place) if "name" in cells else str(index)
            yield row.place, _over(own, cells) | {"name": Node(f"{name}: {inner}", row.place)}

    def _case(self, place: Place, members: Mapping[str, Node]) -> Case:
        whole = mapping(members, place)
        self._values += whole.size
        if self._values > MAX_VALUES:
            refuse(self._file, place, f"from here on the cases hold more than {MAX_VALUES} values. Split the file.")
        for name in ("principal", "activity", "expect"):
            if name not in members:  # [C3]
                refuse(self._file, place, f"this case has no {name}. {_NEXT[name]}")
        allow = self._word(members, "expect") == "allow"
        if not allow and members["expect"].value != "deny":
            refuse(self._file, members["expect"].place, "expect must be allow or deny.")
        for name in ("reason", "error"):
            if name in members and allow:
                refuse(self._file, members[name].place, f"{name} is what a denial says, but allow is expected here.")
        by = self._by(members["by"]) if "by" in members else None
        if allow and by == ():
            refuse(
                self._file, members["by"].place, "by is empty, but nothing is allowed without a policy that permits it."
            )
        entities = self._items(members["entities"], "entities", some=False) if "entities" in members else ()
        plain = {name: member.plain for name, member in members.items()}
        return Case(
            name=self._name(members["name"], place),
            file=self._file,
            place=place,
            principal=plain["principal"],
            activity=self._word(members, "activity"),
            args=plain.get("args"),
            context=plain.get("context"),
            resource=plain.get("resource"),
            now=self._moment(members["now"]) if "now" in members else NOW,
            entities=tuple(entity.plain for entity in entities),
            allow=allow,
            by=by,
            reason=self._word(members, "reason") if "reason" in members else None,
            error=self._word(members, "error") if "error" in members else None,
            places={path: at for name, member in members.items() for path, at in places(member, name).items()},
        )

    def _members(self, node: Node, known: tuple[str, ...], what: str) -> Mapping[str, Node]:
        members = node.value
        if not isinstance(members, Mapping):
            refuse(self._file, node.place, f"{what} must be a mapping with {_listed(known)}, but this is {node.kind}.")
        for name, member in members.items():
            if name not in known:  # [C1]
                close = get_close_matches(name, known, 1)
                step = f"Did you mean {close[0]}?" if close else f"It has {_listed(known)}."
                refuse(self._file, member.place, f"{what} has no {name[:80]}. {step}")
        return members

    def _items(self, node: Node, name: str, *, some: bool = True) -> tuple[Node, ...]:
        if not isinstance(node.value, tuple):
            refuse(self._file, node.place, f"{name} must be a list, but this is {node.kind}.")
        if some and not node.value:
            refuse(self._file, node.place, f"{name} is an empty list. Write at least one, or remove it.")
        return node.value

    def _name(self, node: Node | None, place: Place) -> str:
        if node is None:
            refuse(self._file, place, "this case has no name. Say what it shows: name: a refund above the limit.")
        if not isinstance(node.value, str) or not node.value.strip():
            refuse(self._file, node.place, f"name must be a text, but this is {node.kind}. Quote it.")
        if len(node.value) > 200 or not node.value.isprintable():
            refuse(self._file, node.place, "name must be one line of at most 200 characters that can be shown.")
        return node.value

    def _word(self, members: Mapping[str, Node], name: str) -> str:
        node = members[name]
        if not isinstance(node.value, str) or not node.value:
            refuse(
                self._file, node.place, f"{name} must be a text, but this is {node.kind}. {_NEXT.get(name, '')}".strip()
            )
        return node.value

    def _by(self, node: Node) -> tuple[str, ...]:
        items = node.value if isinstance(node.value, tuple) else (node,)
        if not all(isinstance(item.value, str) and item.value for item in items):
            refuse(self._file, node.place, "by must be the id of a policy or a list of ids; [] is no policy at all.")
        return tuple(dict.fromkeys(item.value for item in items))

    def _moment(self, node: Node) -> datetime.datetime:
        try:
            written = datetime.datetime.fromisoformat(node.value)
            found = written.astimezone(datetime.UTC) if written.utcoffset() is not None else None
        except (TypeError, ValueError, OverflowError):
            found = None
        if found is None:
            refuse(self._file, node.place, "now must be a moment with its time zone, such as 2026-01-05T12:00:00Z.")
        return found


_NEXT: Final = {
    "principal": "Say who asks: principal: 'Agent::\"ops-bot\"'.",
    "activity": "Name the activity type: activity: refund_order.",
    "expect": "Write expect: allow or expect: deny.",
}


def _over(under: Mapping[str, Node], over: Mapping[str, Node]) -> dict[str, Node]:  # C2
    members = dict(under)
    for name, member in over.items():
        members[name] = merged(members[name], member) if name in members and name in _MERGED else member
    return members


def _listed(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
