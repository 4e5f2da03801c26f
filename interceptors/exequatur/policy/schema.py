"""A Cedar schema as data: which entities, actions and context types it declares.

The grammar is that of docs.cedarpolicy.com, "Schema grammar". Cedar itself judges whether a schema is valid; here a
valid one is read, so that other modules can compare its types with code and with values.

Rules:

S1  A text that cannot be read is refused; nothing is skipped.
S2  A type's name means what Cedar makes of it: a common type before an entity type before a primitive one, the own
    namespace before none.
S3  What refers to itself or is nested without bounds is refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cedarpy import Schema

from exequatur.errors import PolicyError
from exequatur.policy.declarations import (
    MAX_TYPE_DEPTH,
    ActionName,
    Annotations,
    Declarations,
    Written,
    WrittenAction,
    WrittenEntity,
    WrittenName,
    WrittenRecord,
    WrittenSet,
    read_declarations,
)
from exequatur.policy.syntax import place_of
from exequatur.policy.types import PRIMITIVES, Attribute, CedarType, EntityType, RecordType, SetType

_BUILTIN = "__cedar"


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
        except ValueError as error:  # [S1]
            raise PolicyError(f"{name}: Cedar refuses the schema: {error}. Correct it and save it again.") from None
    return _Resolver(read_declarations(text, name)).model()


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

    def _entity(self, written: WrittenEntity) -> EntityDeclaration:
        return EntityDeclaration(
            written.name,
            tuple(self._entity_name(name) for name in written.parents),
            self._record(written.attributes),
            written.choices,
            None if written.tags is None else self._type(written.tags),
            written.annotations,
            written.offset,
        )

    def _action(self, written: WrittenAction) -> ActionDeclaration:
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

    def _type(self, written: Written) -> CedarType:
        if isinstance(written, WrittenRecord):
            return self._record(written)
        if isinstance(written, WrittenSet):
            return SetType(self._type(written.element))
        for name in self._candidates(written):  # [S2]
            if name in self._commons:
                return self._common(name)
            if name in self._entities:
                return EntityType(name)
        primitive = PRIMITIVES.get(written.text.removeprefix(f"{_BUILTIN}::"))
        if primitive is None:  # [S1]
            raise PolicyError(f"{self._place(written.offset)}: there is no type {written.text}.")
        return primitive

    def _entity_name(self, written: WrittenName) -> str:
        for name in self._candidates(written):
            if name in self._entities:
                return name
            if name in self._commons and isinstance(common := self._common(name), EntityType):
                return common.name
        raise PolicyError(f"{self._place(written.offset)}: there is no entity type {written.text}.")

    def _candidates(self, written: WrittenName) -> Iterator[str]:
        if written.namespace:  # [S2]
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

    def _record(self, written: WrittenRecord) -> RecordType:
        return RecordType(
            tuple(
                Attribute(name, self._type(kind), required, tuple(annotations.items()))
                for name, kind, required, annotations in written.attributes
            )
        )

    def _place(self, offset: int) -> str:
        return f"{self._from.source}:{place_of(self._from.text, offset)}"
