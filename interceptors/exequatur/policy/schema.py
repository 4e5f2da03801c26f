"""A Cedar schema as data: which entities, actions and context types it declares.

The grammar is that of docs.cedarpolicy.com, "Schema grammar". Cedar itself judges whether a schema is valid; here a
valid one is read, so that other modules can compare its types with code and with values.

Rules:

S1  A text that this reader does not understand is refused; nothing is skipped.
S2  A type's name means what Cedar makes of it: a common type before an entity type before a primitive one, the own
    namespace before none.
S3  What refers to itself or is nested without bounds is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, NoReturn, TypeVar

from cedarpy import Schema

from exequatur.errors import PolicyError
from exequatur.policy.syntax import Token, place_of, tokens, unquoted
from exequatur.policy.types import PRIMITIVES, Attribute, CedarType, EntityType, RecordType, SetType

#: Types in types; real ones have some five levels.
MAX_TYPE_DEPTH = 64
_BUILTIN = "__cedar"

_T = TypeVar("_T")

Annotations = Mapping[str, str]
ActionName = tuple[str, str]
"""Type and id, for example ``("Action", "refund_order")``."""


@dataclass(frozen=True, slots=True)
class EntityDeclaration:
    """A type of entities.

    Args:
        name: Its full name.
        parents: The types of entities that one can be in.
        attributes: What each has.
        choices: The ids there are, of an enumerated type.
        tags: The type of its tags.
        annotations: What is noted about it.
        offset: Where its name stands in the text.
    """

    name: str
    parents: tuple[str, ...]
    attributes: RecordType
    choices: tuple[str, ...] | None
    tags: CedarType | None
    annotations: Annotations
    offset: int


@dataclass(frozen=True, slots=True)
class ActionDeclaration:
    """An action or a group of actions.

    Args:
        type: ``Action``, after its namespace if it has one.
        id: Its id.
        groups: The groups that it is in directly.
        principals: Types of principals that it applies to; None for a group, which applies to nothing.
        resources: Types of resources.
        context: The type of the context.
        annotations: What is noted about it.
        offset: Where its name stands in the text.
    """

    type: str
    id: str
    groups: tuple[ActionName, ...]
    principals: tuple[str, ...] | None
    resources: tuple[str, ...] | None
    context: RecordType
    annotations: Annotations
    offset: int

    @property
    def args(self) -> RecordType | None:
        """The type of ``context.args``; None where there is none."""
        attribute = self.context.get("args")
        return attribute.type if attribute is not None and isinstance(attribute.type, RecordType) else None


@dataclass(frozen=True, slots=True)
class SchemaModel:
    """What a schema declares.

    Args:
        entities: Entity types by full name.
        types: Common types by full name.
        actions: Actions without a namespace by id; those of the gate are among them, groups too.
        others: Actions of namespaces.
    """

    entities: Mapping[str, EntityDeclaration]
    types: Mapping[str, CedarType]
    actions: Mapping[str, ActionDeclaration]
    others: Mapping[ActionName, ActionDeclaration]


def read_schema(text: str, name: str = "schema") -> SchemaModel:
    """Read a schema.

    Args:
        text: The schema in Cedar or JSON syntax.
        name: What errors call it.

    Returns:
        What it declares, with every name resolved. Offsets are only meaningful for Cedar syntax.

    Raises:
        PolicyError: Cedar refuses it, or it cannot be read (S1, S3).
    """
    if text.lstrip().startswith("{"):
        try:
            text = str(Schema.from_json_str(text))
        except ValueError as error:
            raise PolicyError(f"{name}: Cedar refuses the schema: {error}. Correct it and save it again.") from None
    return _Resolver(read_declarations(text, name)).model()


def declared_names(text: str, name: str = "schema") -> frozenset[str]:
    """Return the names of entity types, common types and actions (``Action::"id"``) that a fragment declares.

    A fragment may refer to what another text declares.

    Raises:
        PolicyError: It cannot be read.
    """
    declarations = read_declarations(text, name)
    return frozenset(name for names, _, _ in declarations.spans for name in names)


# What is written, before names are resolved.


@dataclass(frozen=True, slots=True)
class _Name:
    text: str
    namespace: str
    offset: int


@dataclass(frozen=True, slots=True)
class _SetOf:
    element: "_Written"


@dataclass(frozen=True, slots=True)
class _Record:
    attributes: tuple[tuple[str, "_Written", bool, Annotations], ...]


_Written = _Name | _SetOf | _Record


class _Entity(NamedTuple):
    name: str
    parents: tuple[_Name, ...]
    attributes: _Record
    choices: tuple[str, ...] | None
    tags: _Written | None
    annotations: Annotations
    offset: int


class _Common(NamedTuple):
    name: str
    type: _Written
    offset: int


class _Action(NamedTuple):
    type: str
    id: str
    groups: tuple[ActionName, ...]
    principals: tuple[_Name, ...] | None
    resources: tuple[_Name, ...] | None
    context: _Written
    annotations: Annotations
    offset: int


class Declarations(NamedTuple):
    """The declarations of a text, names unresolved."""

    text: str
    source: str
    entities: list[_Entity]
    types: list[_Common]
    actions: list[_Action]
    spans: list[tuple[tuple[str, ...], int, int]]
    """Names and extent of each declaration, annotations included."""


def read_declarations(text: str, name: str = "schema") -> Declarations:
    """Read a schema or a fragment of one in Cedar syntax, without resolving names.

    Raises:
        PolicyError: It cannot be read; the message has line and column.
    """
    return _Reader(text, name).read()


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
        parents: tuple[_Name, ...] = ()
        attributes, tags, choices = _Record(()), None, None
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
            _Entity(name, parents, attributes, choices, tags, annotations, offset) for offset, name in names
        )
        return tuple(name for _, name in names)

    def _common(self) -> tuple[str, ...]:
        offset = self._here()
        name = self._full(self._name_word("the type's name"))
        self._expect("=")
        self._out.types.append(_Common(name, self._type(), offset))
        self._expect(";")
        return (name,)

    def _action(self, annotations: Annotations) -> tuple[str, ...]:
        names = [(self._here(), self._id())]
        while self._accept(","):
            names.append((self._here(), self._id()))
        groups: tuple[ActionName, ...] = ()
        principals = resources = None
        context: _Written = _Record(())
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
            _Action(kind, name, groups, principals, resources, context, annotations, offset) for offset, name in names
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

    def _names(self) -> tuple[_Name, ...]:
        return tuple(self._listed(self._type_name, "[", "]")) if self._peek("[") else (self._type_name(),)

    def _type(self) -> _Written:
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
                return _SetOf(element)
            return self._type_name()
        finally:
            self._depth -= 1

    def _record(self) -> _Record:
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
        return _Record(tuple(attributes))

    def _type_name(self) -> _Name:
        offset = self._here()
        return _Name(self._path(), self._namespace, offset)

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
        if not self._accept(text):
            self._refuse(text)

    def _refuse(self, wanted: str) -> NoReturn:  # S1
        word = self._word()
        found = f"found {word.text[:60]}" if word is not None else "the text ends"
        raise PolicyError(f"{self._name}:{place_of(self._text, self._here())}: {wanted} is expected, but {found}.")


class _Resolver:
    """Gives names their meaning (S2)."""

    def __init__(self, declarations: Declarations) -> None:
        self._from = declarations
        self._commons = {each.name: each for each in declarations.types}
        self._entities = {each.name for each in declarations.entities}
        self._resolved: dict[str, CedarType] = {}
        self._waiting: list[str] = []

    def model(self) -> SchemaModel:
        types = {name: self._common(name) for name in self._commons}
        entities = {each.name: self._entity(each) for each in self._from.entities}
        actions, others = {}, {}
        for each in self._from.actions:
            action = self._action(each)
            if each.type == "Action":
                actions[each.id] = action
            else:
                others[each.type, each.id] = action
        return SchemaModel(entities, types, actions, others)

    def _entity(self, written: _Entity) -> EntityDeclaration:
        return EntityDeclaration(
            written.name,
            tuple(self._entity_name(name) for name in written.parents),
            self._record(written.attributes),
            written.choices,
            None if written.tags is None else self._type(written.tags),
            written.annotations,
            written.offset,
        )

    def _action(self, written: _Action) -> ActionDeclaration:
        context = self._type(written.context)
        if not isinstance(context, RecordType):
            raise PolicyError(f"{self._place(written.offset)}: the context of {written.id} is not a record.")
        names = [
            None if each is None else tuple(self._entity_name(name) for name in each)
            for each in (written.principals, written.resources)
        ]
        return ActionDeclaration(
            written.type,
            written.id,
            written.groups,
            names[0],
            names[1],
            context,
            written.annotations,
            written.offset,
        )

    def _type(self, written: _Written) -> CedarType:
        if isinstance(written, _Record):
            return self._record(written)
        if isinstance(written, _SetOf):
            return SetType(self._type(written.element))
        for name in self._candidates(written):  # [S2]
            if name in self._commons:
                return self._common(name)
            if name in self._entities:
                return EntityType(name)
        primitive = PRIMITIVES.get(written.text.removeprefix(f"{_BUILTIN}::"))
        if primitive is None:
            raise PolicyError(f"{self._place(written.offset)}: there is no type {written.text}.")
        return primitive

    def _entity_name(self, written: _Name) -> str:
        for name in self._candidates(written):
            if name in self._entities:
                return name
            if name in self._commons and isinstance(common := self._common(name), EntityType):
                return common.name
        raise PolicyError(f"{self._place(written.offset)}: there is no entity type {written.text}.")

    def _candidates(self, written: _Name) -> Iterator[str]:
        if written.namespace:
            yield f"{written.namespace}::{written.text}"
        yield written.text

    def _common(self, name: str) -> CedarType:
        if name not in self._resolved:
            if name in self._waiting or len(self._waiting) > MAX_TYPE_DEPTH:  # [S3]
                raise PolicyError(f"{self._place(self._commons[name].offset)}: the type {name} refers to itself.")
            self._waiting.append(name)
            self._resolved[name] = self._type(self._commons[name].type)
            self._waiting.pop()
        return self._resolved[name]

    def _record(self, written: _Record) -> RecordType:
        return RecordType(
            tuple(
                Attribute(name, self._type(kind), required, tuple(annotations.items()))
                for name, kind, required, annotations in written.attributes
            )
        )

    def _place(self, offset: int) -> str:
        return f"{self._from.source}:{place_of(self._from.text, offset)}"
