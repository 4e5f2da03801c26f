"""The declarations of a Cedar schema as they are written, before names are resolved.

The grammar is that of docs.cedarpolicy.com, "Schema grammar".

Rules:

S1  A text that this reader does not understand is refused; nothing is skipped.
S3  What is nested without bounds is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeVar

from exequatur.errors import PolicyError
from exequatur.policy.syntax import Token, place_of, tokens, unquoted

#: Types in types; real ones have some five levels.
MAX_TYPE_DEPTH = 64

_T = TypeVar("_T")

Annotations = Mapping[str, str]
ActionName = tuple[str, str]
"""Type and id, for example ``("Action", "refund_order")``."""


@dataclass(frozen=True, slots=True)
class WrittenName:
    text: str
    namespace: str
    offset: int


@dataclass(frozen=True, slots=True)
class WrittenSet:
    element: "Written"


@dataclass(frozen=True, slots=True)
class WrittenRecord:
    attributes: tuple[tuple[str, "Written", bool, Annotations], ...]


Written = WrittenName | WrittenSet | WrittenRecord


class WrittenEntity(NamedTuple):
    name: str
    parents: tuple[WrittenName, ...]
    attributes: WrittenRecord
    choices: tuple[str, ...] | None
    tags: Written | None
    annotations: Annotations
    offset: int


class WrittenCommon(NamedTuple):
    name: str
    type: Written
    offset: int


class WrittenAction(NamedTuple):
    type: str
    id: str
    groups: tuple[ActionName, ...]
    principals: tuple[WrittenName, ...] | None
    resources: tuple[WrittenName, ...] | None
    context: Written
    annotations: Annotations
    offset: int


class Declarations(NamedTuple):
    """The declarations of a text, names unresolved."""

    text: str
    source: str
    entities: list[WrittenEntity]
    types: list[WrittenCommon]
    actions: list[WrittenAction]
    spans: list[tuple[tuple[str, ...], int, int]]
    """Names and extent of each declaration, annotations included."""


def read_declarations(text: str, name: str = "schema") -> Declarations:
    """Read a schema or a fragment of one in Cedar syntax, without resolving names.

    Raises:
        PolicyError: It cannot be read; the message has line and column.
    """
    return _Reader(text, name).read()


def declared_names(text: str, name: str = "schema") -> frozenset[str]:
    """Return the names of entity types, common types and actions (``Action::"id"``) that a fragment declares.

    A fragment may refer to what another text declares.

    Raises:
        PolicyError: It cannot be read.
    """
    declarations = read_declarations(text, name)
    return frozenset(name for names, _, _ in declarations.spans for name in names)


class _Reader:
    """A recursive descent through the schema grammar."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name
        self._words = tokens(text)
        self._at = 0
        self._depth = 0
        self._namespace = ""
        self._out = Declarations(text, name, [], [], [], [])

    def read(self) -> Declarations:
        while self._word() is not None:
            self._declaration(top=True)
        return self._out

    def _declaration(self, *, top: bool = False) -> None:
        start = self._here()
        annotations = self._annotations()
        keyword = self._name_word("entity, action, type or namespace")
        if keyword == "namespace" and top:
            self._namespace = self._path()
            self._expect("{")
            while not self._accept("}"):
                self._declaration()
            self._namespace = ""
            return
        names: tuple[str, ...]
        if keyword == "entity":
            names = self._entity(annotations)
        elif keyword == "action":
            names = self._action(annotations)
        elif keyword == "type":
            names = self._common()
        else:
            self._at -= 1
            self._refuse("entity, action, type or namespace")
        self._out.spans.append((names, start, self._words[self._at - 1].end))

    def _entity(self, annotations: Annotations) -> tuple[str, ...]:
        names = [(self._here(), self._full(self._name_word("the entity's name")))]
        while self._accept(","):
            names.append((self._here(), self._full(self._name_word("the entity's name"))))
        parents: tuple[WrittenName, ...] = ()
        attributes, tags, choices = WrittenRecord(()), None, None
        if self._accept("enum"):
            choices = tuple(self._listed(self._string, "[", "]"))
        else:
            if self._accept("in"):
                parents = self._names()
            self._accept("=")
            if self._peek("{"):
                attributes = self._record()
            if self._accept("tags"):
                tags = self._type()
        self._expect(";")
        self._out.entities.extend(
            WrittenEntity(name, parents, attributes, choices, tags, annotations, offset) for offset, name in names
        )
        return tuple(name for _, name in names)

    def _common(self) -> tuple[str, ...]:
        offset = self._here()
        name = self._full(self._name_word("the type's name"))
        self._expect("=")
        self._out.types.append(WrittenCommon(name, self._type(), offset))
        self._expect(";")
        return (name,)

    def _action(self, annotations: Annotations) -> tuple[str, ...]:
        names = [(self._here(), self._id())]
        while self._accept(","):
            names.append((self._here(), self._id()))
        groups: tuple[ActionName, ...] = ()
        principals = resources = None
        context: Written = WrittenRecord(())
        if self._accept("in"):
            groups = tuple(self._listed(self._group, "[", "]")) if self._peek("[") else (self._group(),)
        if self._accept("appliesTo"):
            self._expect("{")
            while not self._accept("}"):
                part = self._name_word("principal, resource or context")
                self._expect(":")
                if part == "principal":
                    principals = self._names()
                elif part == "resource":
                    resources = self._names()
                elif part == "context":
                    context = self._type()
                else:
                    self._at -= 2
                    self._refuse("principal, resource or context")
                if not self._peek("}"):
                    self._expect(",")
        if self._accept("attributes"):
            self._expect("{")
            self._expect("}")
        self._expect(";")
        kind = self._full("Action")
        self._out.actions.extend(
            WrittenAction(kind, name, groups, principals, resources, context, annotations, offset)
            for offset, name in names
        )
        return tuple(f'{kind}::"{name}"' for _, name in names)

    def _group(self) -> ActionName:
        word = self._word()
        if word is not None and word.kind == "string":
            return self._full("Action"), self._string()
        parts = [self._name_word("a group's name")]
        while self._accept("::"):
            following = self._word()
            if following is not None and following.kind == "string":
                return "::".join(parts), self._string()
            parts.append(self._name_word("a group's name"))
        if len(parts) > 1:
            self._refuse("the group's id as a string")
        return self._full("Action"), parts[0]

    def _names(self) -> tuple[WrittenName, ...]:
        return tuple(self._listed(self._type_name, "[", "]")) if self._peek("[") else (self._type_name(),)

    def _type(self) -> Written:
        self._depth += 1
        if self._depth > MAX_TYPE_DEPTH:  # [S3]
            self._refuse(f"fewer than {MAX_TYPE_DEPTH} types in one another")
        try:
            if self._peek("{"):
                return self._record()
            word, following = self._word(), self._word(1)
            if word is not None and word.text == "Set" and following is not None and following.text == "<":
                self._at += 2
                element = self._type()
                self._expect(">")
                return WrittenSet(element)
            return self._type_name()
        finally:
            self._depth -= 1

    def _record(self) -> WrittenRecord:
        self._expect("{")
        attributes = []
        while not self._accept("}"):
            annotations = self._annotations()
            name = self._id()
            required = not self._accept("?")
            self._expect(":")
            attributes.append((name, self._type(), required, annotations))
            if not self._peek("}"):
                self._expect(",")
        return WrittenRecord(tuple(attributes))

    def _type_name(self) -> WrittenName:
        offset = self._here()
        return WrittenName(self._path(), self._namespace, offset)

    def _annotations(self) -> Annotations:
        found: dict[str, str] = {}
        while self._accept("@"):
            name = self._name_word("the annotation's name")
            found[name] = ""
            if self._accept("("):
                found[name] = self._string()
                self._expect(")")
        return found

    def _path(self) -> str:
        parts = [self._name_word("a name")]
        while self._accept("::"):
            parts.append(self._name_word("a name"))
        return "::".join(parts)

    def _full(self, name: str) -> str:
        return f"{self._namespace}::{name}" if self._namespace else name

    def _id(self) -> str:
        word = self._word()
        return self._string() if word is not None and word.kind == "string" else self._name_word("a name")

    def _string(self) -> str:
        word = self._word()
        if word is None or word.kind != "string":
            self._refuse("a string")
        self._at += 1
        return unquoted(word.text)

    def _name_word(self, wanted: str) -> str:
        word = self._word()
        if word is None or word.kind != "name":
            self._refuse(wanted)
        self._at += 1
        return word.text

    def _listed(self, read: Callable[[], _T], first: str, last: str) -> Iterator[_T]:
        self._expect(first)
        while not self._accept(last):
            yield read()
            if not self._peek(last):
                self._expect(",")

    def _word(self, ahead: int = 0) -> Token | None:
        return self._words[self._at + ahead] if self._at + ahead < len(self._words) else None

    def _here(self) -> int:
        word = self._word()
        return word.start if word is not None else len(self._text)

    def _peek(self, text: str) -> bool:
        word = self._word()
        return word is not None and word.text == text

    def _accept(self, text: str) -> bool:
        if not self._peek(text):
            return False
        self._at += 1
        return True

    def _expect(self, text: str) -> None:
        if not self._accept(text):  # [S1]
            self._refuse(text)

    def _refuse(self, wanted: str) -> NoReturn:  # S1
        word = self._word()
        found = f"found {word.text[:60]}" if word is not None else "the text ends"
        raise PolicyError(f"{self._name}:{place_of(self._text, self._here())}: {wanted} is expected, but {found}.")
