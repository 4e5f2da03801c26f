"""A Cedar schema from activities: an action for each, with the types of its arguments, on top of the base model.

Rules:

G1  The same code and fragment give the same text, byte for byte.
G2  What has no Cedar type is left out with a warning that names it.
G3  Declarations of the fragment take the place of those of the base model; it cannot declare an activity's action.
G4  The text is a schema that Cedar and this package read, or there is none.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from importlib.resources import files
from typing import Any

from cedarpy import Schema

from exequatur.errors import PolicyError
from exequatur.policy.action import WORKFLOW_TYPE, mark_of
from exequatur.policy.conformance import differences
from exequatur.policy.declarations import Declarations, read_declarations
from exequatur.policy.hints import hinted_function
from exequatur.policy.notes import noted, summary_of
from exequatur.policy.schema import SchemaModel, read_schema
from exequatur.policy.shapes import Arguments, DictType, arguments_of
from exequatur.policy.syntax import place_of, quoted, tokens, unquoted
from exequatur.policy.types import Attribute, CedarType, Path, RecordType, SetType, attribute_name, written

FRAGMENT_NAME = "model.cedarschema"
EVERY_ACTIVITY = "activity"
"""The group that all activities are in."""

_HEADER = f"""\
// Made by `exequatur policy schema` from the activities' code. Do not edit it: what is the application's own, such as
// attributes of principals, resources and groups, is declared in {FRAGMENT_NAME} beside it.
"""
_WIDTH = 100
#: As the base model writes who can start a workflow; principals of the application are added.
_STARTERS = "[Agent, User, Service]"
#: Has no grant, and without one nothing is started or reset.
_UNGRANTED = "Unauthenticated"
_PRINCIPAL = "principal"
_FACTS = """\
    activity: Attempt,
    run: Run,
    worker: Worker,
    now: datetime,
    behavior?: Behavior,
    acting?: Acting,
    approvals?: Approvals,
"""
_RESERVED_TYPES = frozenset({"Bool", "Boolean", "Long", "String", "Set", "Record", "Entity", "Extension"})
_QUOTED = re.compile(r'`([^`]+)`|(?:type|action): (?:Action::)?("?[^"]+"?)$')


@dataclass(frozen=True, slots=True)
class Generated:
    """A generated schema.

    Args:
        text: The schema in Cedar syntax.
        warnings: What was left out of it, a sentence each.
    """

    text: str
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Activity:
    name: str
    arguments: Arguments
    groups: tuple[str, ...]
    resource: str
    about: str


def generate(
    activities: Mapping[str, Callable[..., Any]], fragment: str | None = None, name: str = FRAGMENT_NAME
) -> Generated:
    """Generate a schema.

    Args:
        activities: Functions, bound methods or objects with ``__call__`` by activity type.
        fragment: What the application declares itself, in Cedar schema syntax: entity types, attributes, groups, the
            keys of dicts. Entity types that act are annotated ``@principal``.
        name: What errors call the fragment.

    Returns:
        The schema and what was left out.

    Raises:
        PolicyError: The fragment cannot be read or does not fit; the message has its line and column.
    """
    own = read_declarations(fragment or "", name)
    read = [_read(each, fn) for each, fn in sorted(activities.items())]
    composer = _Composer(own, read)
    text = composer.text()
    model = _checked(text, own, composer.fragment_line)
    composer.check_dicts(model)
    return Generated(text, tuple(composer.warnings()))


@lru_cache(maxsize=1)
def base_model() -> str:
    """Return the model that every schema begins with: principals, the workflow, and what the gate tells policies."""
    return files("exequatur.authoring.schema").joinpath(FRAGMENT_NAME).read_text("utf-8")


def _read(name: str, fn: Callable[..., Any]) -> _Activity:
    mark = mark_of(fn)
    return _Activity(name, arguments_of(fn), mark.groups, mark.resource_type, noted([summary_of(hinted_function(fn))]))


class _Composer:
    """Puts the parts of a schema together."""

    def __init__(self, own: Declarations, activities: list[_Activity]) -> None:
        self._own = own
        self._activities = activities
        self._base = read_declarations(base_model(), "the base model")
        self._declared = {name for names, _, _ in own.spans for name in names}
        self._known = self._declared | {name for names, _, _ in self._base.spans for name in names}
        self._dicts = self._named_dicts()
        self.fragment_line = 0
        """The line of the text before the fragment's first."""
        self._refuse_clashes()

    def text(self) -> str:
        parts = [_HEADER, self._base_text()]
        if self._own.text.strip():
            parts.append(f"// From {FRAGMENT_NAME}.")
            self.fragment_line = "\n".join(parts).count("\n") + 1
            parts += [self._own.text.rstrip(), ""]
        new = [dict_name for dict_name, _, _, _ in self._dicts.values() if dict_name not in self._declared]
        if new:
            parts.append(f"// Dicts: of their keys, policies can read those that {FRAGMENT_NAME} declares.")
            parts += [*(f"type {each} = {{}};" for each in new), ""]
        resources = sorted({each.resource for each in self._activities} - self._known - {WORKFLOW_TYPE})
        if resources:
            parts.append("// What activities act on, as their code names it.")
            parts += [*(f"entity {each};" for each in resources), ""]
        groups = sorted({group for each in self._activities for group in each.groups})
        new = [each for each in groups if f'Action::"{each}"' not in self._known]
        if new:
            parts.append("// Groups, so that a policy can speak of a kind of activity.")
            parts += [f"action {', '.join(map(quoted, new))};", ""]
        parts += [self._action(each) for each in self._activities]
        return "\n".join(parts).rstrip() + "\n"

    def warnings(self) -> Iterator[str]:  # [G2]
        for activity in self._activities:
            for path, reason in activity.arguments.omitted:
                yield f"{activity.name}: {_dotted(path)} {reason}; policies cannot read it"
            for (owner, path), (dict_name, _, kind, _) in self._dicts.items():
                if owner == activity.name and dict_name not in self._declared:
                    values = "…" if kind.values is None else written(kind.values)
                    yield (
                        f"{owner}: {_dotted(path)} is a dict; policies can read those of its keys that {FRAGMENT_NAME} "
                        f"declares, for example: type {dict_name} = {{ key?: {values} }};"
                    )

        yield from self._unused_types()

    def _unused_types(self) -> Iterator[str]:
        """Types of the fragment that are probably meant for a dict and are that of none."""
        dicts = {dict_name for dict_name, _, _, _ in self._dicts.values()}
        words = Counter(token.text for token in tokens(self._own.text))
        for each in self._own.types:
            local = each.name.rpartition("::")[2]
            if each.name in dicts or words[local] > 1 or any(each.name in names for names, _, _ in self._base.spans):
                continue
            close = get_close_matches(each.name, sorted(dicts), 1)
            step = f"did you mean {close[0]}?" if close else "remove it, or use it"
            where = self._place(each.offset)
            yield f"{where}: no dict of an activity has the type {each.name}, and nothing uses it; {step}"

    def check_dicts(self, model: SchemaModel) -> None:
        """Refuse keys of a dict that are declared in another way than its values are.

        Raises:
            PolicyError: They are.
        """
        for (owner, path), (dict_name, _, kind, offset) in self._dicts.items():
            if dict_name not in self._declared:
                continue
            for where, problem in differences(kind, model.types[dict_name], path):
                raise PolicyError(
                    f"{self._place(offset)}: {dict_name} does not fit {owner}: {_dotted(where)} "
                    f"{problem.replace('the bundle', 'the fragment')}. Correct the type."
                )

    def _refuse_clashes(self) -> None:  # [G3]
        actions = {f'Action::"{each.name}"': each.name for each in self._activities}
        for names, start, _ in self._own.spans:
            for name in names:
                if name in actions:
                    raise PolicyError(
                        f"{self._place(start)}: the action {actions[name]} is generated from the activity. Remove it "
                        "here; its groups and resource are named with @action in the code."
                    )
        reserved = {name for names, _, _ in self._base.spans for name in names}
        groups = {group for each in self._activities for group in each.groups}
        for each in self._activities:
            if f'Action::"{each.name}"' in reserved:
                raise PolicyError(f"{each.name}: an activity cannot have the name of an action of the gate. Rename it.")
            if each.name in groups:
                raise PolicyError(f"{each.name}: there is an activity and a group of this name. Rename one of them.")
        for group in sorted(groups):
            if f'Action::"{group}"' in reserved and group != EVERY_ACTIVITY:
                raise PolicyError(f"{group}: a group cannot have the name of an action of the gate. Rename it.")

    def _base_text(self) -> str:
        text = self._base.text
        for names, start, end in reversed(self._base.spans):
            if self._declared.intersection(names):  # [G3]
                text = text[:start].rstrip("\n") + "\n" + text[end:].lstrip("\n")
        granted = [each for each in self._principals() if each != _UNGRANTED]
        return text.replace(_STARTERS, f"[{', '.join(granted)}]")

    def _principals(self) -> list[str]:
        declared = (*self._base.entities, *self._own.entities)
        return list(dict.fromkeys(each.name for each in declared if _PRINCIPAL in each.annotations))

    def _action(self, activity: _Activity) -> str:
        groups = ", ".join(quoted(each) for each in dict.fromkeys((EVERY_ACTIVITY, *activity.groups)))
        about = [f"@doc({quoted(activity.about)})"] if activity.about else []
        return "\n".join(
            [
                *about,
                f"@parameters({quoted(','.join(activity.arguments.names))})",
                f"action {quoted(activity.name)} in [{groups}] appliesTo {{",
                f"  principal: [{', '.join(self._principals())}],",
                f"  resource: [{activity.resource}],",
                "  context: {",
                f"    args: {self._written(activity.arguments.record, (), activity.name, 4)},",
                f"{_FACTS}  }},",
                "};",
                "",
            ]
        )

    def _written(self, kind: CedarType, path: Path, owner: str, indent: int) -> str:
        """A type over as many lines as it needs."""
        if isinstance(kind, DictType):
            return self._dicts[owner, path][0]
        if isinstance(kind, SetType):
            return f"Set<{self._written(kind.element, (*path, ''), owner, indent)}>"
        if not isinstance(kind, RecordType):
            return written(kind)
        if not kind.attributes:
            return "{}"
        pad = " " * (indent + 2)
        lines = [line for each in kind.attributes for line in self._attribute(each, path, owner, indent + 2)]
        short = f"{{ {' '.join(lines).removesuffix(',')} }}"
        if len(kind.attributes) > 3 or len(short) + indent > _WIDTH - 20 or "@" in short or "\n" in short:
            return "\n".join(["{", *(pad + line for line in lines), " " * indent + "}"])
        return short

    def _attribute(self, attribute: Attribute, path: Path, owner: str, indent: int) -> Iterator[str]:
        for key, text in attribute.annotations:
            yield f"@{key}({quoted(text)})"
        mark = "" if attribute.required else "?"
        kind = self._written(attribute.type, (*path, attribute.name), owner, indent)
        yield f"{attribute_name(attribute.name)}{mark}: {kind},"

    def _named_dicts(self) -> dict[tuple[str, Path], tuple[str, Path, DictType, int]]:
        """The names of the types of dicts; a fragment that declares one says which keys there are."""
        types = {each.name: each.offset for each in self._own.types}
        taken = (self._known - set(types)) | _RESERVED_TYPES
        found: dict[tuple[str, Path], tuple[str, Path, DictType, int]] = {}
        for activity in self._activities:
            for path, kind in _dicts_in(activity.arguments.record):
                name = plain = _identifier("_".join((activity.name, *path)))
                count = 1
                while name in taken:
                    count += 1
                    name = f"{plain}_{count}"
                taken.add(name)
                found[activity.name, path] = (name, path, kind, types.get(name, 0))
        return found

    def _place(self, offset: int) -> str:
        return f"{self._own.source}:{place_of(self._own.text, offset)}"


def _dicts_in(record: RecordType, path: Path = ()) -> Iterator[tuple[Path, DictType]]:
    for attribute in record.attributes:
        here = (*path, attribute.name)
        if isinstance(attribute.type, DictType):
            yield here, attribute.type
        elif isinstance(attribute.type, RecordType):
            yield from _dicts_in(attribute.type, here)


def _identifier(text: str) -> str:
    name = re.sub(r"\W", "_", text, flags=re.ASCII)
    return name if name[:1].isalpha() else f"T{name}"


def _checked(text: str, own: Declarations, before: int) -> SchemaModel:  # [G4]
    """The schema that a composed text declares.

    Raises:
        PolicyError: It is none; what is wrong stands in the fragment, or in the names of the code.
    """
    try:
        model = read_schema(text, "")
        Schema.from_str(text)
    except PolicyError as error:
        match = re.match(r":(\d+):(\d+): (.*)", str(error), re.DOTALL)
        if match is None:
            raise
        line, column, sentence = int(match.group(1)) - before, match.group(2), match.group(3)
        where = f"{own.source}:{line}:{column}" if 0 < line <= own.text.count("\n") + 1 else own.source
        raise PolicyError(f"{where}: {sentence}") from None
    except ValueError as error:
        raise PolicyError(f"{_place_of(str(error), own)}: {error}. Correct it and run this again.") from None
    return model


def _place_of(error: str, own: Declarations) -> str:
    """Where the fragment has the last of the names that Cedar complains about."""
    names = {unquoted(name) if name.startswith('"') else name for name in _names_in(error)}
    found = [
        each for each in tokens(own.text) if (unquoted(each.text) if each.kind == "string" else each.text) in names
    ]
    return f"{own.source}:{place_of(own.text, found[-1].start)}" if found else own.source


def _names_in(error: str) -> Iterable[str]:
    for match in _QUOTED.finditer(error):
        name = match.group(1) or match.group(2)
        yield name
        yield name.rpartition("::")[2]


def _dotted(path: Path) -> str:
    return ".".join(("args", *path))
