"""What is wrong with a schema, and where."""

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import get_close_matches

from cedarpy import Schema

from exequatur.authoring.checks.findings import Finding, finding
from exequatur.authoring.checks.texts import Text
from exequatur.errors import PolicyError
from exequatur.policy.declarations import declared_names, read_declarations
from exequatur.policy.nesting import too_deep
from exequatur.policy.schema import SchemaModel, read_schema
from exequatur.policy.syntax import Token, parse_error_offset, unquoted
from exequatur.policy.told import untold
from exequatur.policy.types import PRIMITIVES, CedarType, RecordType, SetType

_UNRESOLVED = re.compile(r"failed to resolve types?: (.+)", re.DOTALL)
_UNDECLARED = re.compile(r'undeclared actions?: (?:\w+::)*Action::"(.+)"', re.DOTALL)
_CYCLE = re.compile(r"cycle in .+ containing `(?:(?:\w+::)*Action::)?(.+)`", re.DOTALL)
_NAMED = re.compile(r"`([^`]+)`")
_JSON_PLACE = re.compile(r" at line (\d+) column (\d+)$")
_OWN_PLACE = re.compile(r":(\d+):(\d+): (.*)\.$", re.DOTALL)
_DECLARING = frozenset({"entity", "type", "action", "namespace"})
_MAX_MESSAGE = 300


def read(file: Text) -> tuple[Schema | None, SchemaModel | None, list[Finding]]:
    """Read a schema.

    Args:
        file: The schema, in Cedar or JSON syntax.

    Returns:
        The schema as Cedar has it and as data, None where it cannot be read, and what is wrong with it.
    """
    is_json = file.text.lstrip().startswith("{")
    deep = too_deep(file.words)
    if deep is not None:
        return (
            None,
            None,
            [finding("schema", file, deep.start, deep.end, "types are nested too deeply", "name inner types")],
        )
    parse: Callable[[str], Schema] = Schema.from_json_str if is_json else Schema.from_str
    try:
        schema = parse(file.text)
    except ValueError as error:
        message = str(error).removeprefix("error parsing schema: ")
        return None, None, list((_json_error if is_json else _error)(file, message))
    try:
        model = read_schema(file.text, file.name)
    except PolicyError as error:
        return schema, None, [_own_error(file, str(error))]
    except RecursionError:
        return schema, None, [finding("schema", file, 0, 0, "types are nested too deeply", "name inner types")]
    found = [] if is_json else [*_twice(file, model), *_untold(file, model)]
    return schema, model, found


def fragment(file: Text) -> Iterator[Finding]:
    """Check a fragment of a schema, which may refer to what another text declares."""
    deep = too_deep(file.words)
    if deep is not None:
        yield finding("schema", file, deep.start, deep.end, "types are nested too deeply", "name inner types")
        return
    try:
        declared_names(file.text, file.name)
    except PolicyError as error:
        yield _own_error(file, str(error))


def outdated(own: Text, schema: Text) -> Iterator[Finding]:
    """Compare a fragment with the schema that was generated with it.

    Args:
        own: The fragment, which can be read.
        schema: The schema.
    """
    if schema.text.lstrip().startswith("{"):
        return  # In JSON the same declaration is another text.
    try:
        declared, there = (read_declarations(each.text, each.name) for each in (own, schema))
    except PolicyError:
        return
    known = {names: _without_blanks(schema, start, end) for names, start, end in there.spans}
    for names, start, end in declared.spans:
        said = known.get(names)
        if said == _without_blanks(own, start, end):
            continue
        problem = "is not in the schema" if said is None else "is otherwise in the schema"
        yield finding(
            "schema-outdated",
            own,
            start,
            end,
            f"{', '.join(names)[:80]} {problem}",
            "run: exequatur policy schema --from MODULE",
        )


def _without_blanks(file: Text, start: int, end: int) -> list[str]:
    first = bisect_left(file.words, start, key=lambda word: word.start)
    last = bisect_left(file.words, end, key=lambda word: word.start)
    return [word.text for word in file.words[first:last]]


def _error(file: Text, message: str) -> Iterator[Finding]:
    offset = parse_error_offset(file.text, Schema.from_str)
    if offset is not None:
        word = next((each for each in file.words if each.start >= offset), None)
        fix = _syntax_fix(file, word)
        yield finding("schema", file, offset, word.end if word else offset, message[:_MAX_MESSAGE], fix)
        return
    if match := _UNRESOLVED.match(message):
        for name in match.group(1).split(", "):
            yield _unresolved(file, name)
        return
    undeclared, cycle = _UNDECLARED.match(message), _CYCLE.match(message)
    if undeclared is not None:
        name = unquoted(f'"{undeclared.group(1)}"')
        words = [each for each in _named(file, name) if not _declares(file, each)]
        actions = [_value(each) for each in file.words if _declares(file, each, "action")]
        close = get_close_matches(name, actions, 1)
        fix = f"did you mean {close[0]}?" if close else f'declare the group: action "{name[:80]}";'
        yield _at(file, words[0] if words else None, f'there is no action "{name[:80]}"', fix)
        return
    named = cycle or _NAMED.search(message)
    words = _named(file, _value_of(named.group(1))) if named else []
    declaring = [each for each in words if _declares(file, each)]
    if "declared twice" in message and len(declaring) > 1:
        yield _at(file, declaring[1], message, "remove one of the two")
    elif "duplicate" in message and len(words) > 1:
        yield _at(file, words[1], message[:_MAX_MESSAGE], "remove one of the two")
    else:
        step = "correct this declaration"
        yield _at(file, next(iter(declaring or words), None), message[:_MAX_MESSAGE], step)


def _syntax_fix(file: Text, word: Token | None) -> str:
    """The next step where Cedar meets a word that it does not expect, or the end of the text."""
    if word is None:
        closed = bool(file.words) and sum((each.text == "{") - (each.text == "}") for each in file.words) <= 0
        return "end the declaration with a semicolon" if closed else "close what is open, and end it with a semicolon"
    if word.text in ("permit", "forbid"):
        return "write policies into a file that ends in .cedar"
    if word.text == '"':
        return "end the string with a double quote"
    index = _index(file, word)
    before = [each.text for each in file.words[max(0, index - 2) : index]]
    if before and word.kind == "string" and before[-1] in ("entity", "type", "namespace"):
        return "write the name without quotes"
    if before and word.text in _DECLARING and before[-1] != ";":
        return "end the declaration before with a semicolon"
    if len(before) == 2 and word.kind == "name" and _is_id(file.words[index - 1]) and before[0] in ("{", ","):
        return f"a colon is missing before {word.text[:80]}"
    if len(before) == 2 and _is_id(word) and (_is_id(file.words[index - 1]) or before[-1] in ("]", "}", ">")):
        return f"a comma is missing before {word.text[:80]}"
    return "a declaration is: entity NAME …; type NAME = …; action NAME …; each with its semicolon"


def _is_id(word: Token) -> bool:
    return word.kind in ("name", "string")


def _unresolved(file: Text, name: str) -> Finding:
    parts = re.findall(r"::|\w+", name)
    words = file.words
    found = None
    for index in range(len(words) - len(parts) + 1):
        if [each.text for each in words[index : index + len(parts)]] == parts and not _declares(file, words[index]):
            found = words[index]
            break
    try:
        known = {each for each in declared_names(file.text, file.name) if '"' not in each} | set(PRIMITIVES)
    except PolicyError:
        known = set(PRIMITIVES)
    close = get_close_matches(name, sorted(known), 1)
    fix = f"did you mean {close[0]}?" if close else f"declare it: entity {name}; or type {name} = …;"
    return _at(file, found, f"there is no type {name[:80]}", fix)


def _json_error(file: Text, message: str) -> Iterator[Finding]:
    place = _JSON_PLACE.search(message)
    if place is not None:
        offset = file.offset(int(place.group(1)), int(place.group(2)))
        said = message[: place.start()][:_MAX_MESSAGE]
        fix = "declare it, as in the JSON schema format" if "missing field" in said else "correct the JSON here"
        yield finding("schema", file, offset, offset + 1, said, fix)
        return
    named = re.search(r"types?: ([\w:]+)", message) or _NAMED.search(message)
    offset = file.text.find(f'"{named.group(1)}"') if named else -1
    width = len(named.group(1)) + 2 if named else 1
    yield finding("schema", file, max(offset, 0), max(offset, 0) + width, message[:_MAX_MESSAGE], "correct it")


def _own_error(file: Text, message: str) -> Finding:
    """An error of this package's reader, which says the place itself."""
    place = _OWN_PLACE.search(message)
    if place is None:
        return finding("schema", file, 0, 0, message[:_MAX_MESSAGE].rstrip("."), "correct the schema")
    offset = file.offset(int(place.group(1)), int(place.group(2)))
    word = next((each for each in file.words if each.start >= offset), None)
    said = place.group(3)[:_MAX_MESSAGE]
    return finding("schema", file, offset, word.end if word else offset, said, _syntax_fix(file, word))


def _twice(file: Text, model: SchemaModel) -> Iterator[Finding]:
    """Attributes that a record declares twice, which Cedar accepts: the last one counts."""
    for entity in model.entities.values():
        yield from _in_type(file, entity.attributes, entity.offset, entity.name)
    for name, kind in model.types.items():
        word = next((each for each in _named(file, name.rpartition("::")[2]) if _declares(file, each, "type")), None)
        yield from _in_type(file, kind, word.start if word else 0, name)
    for action in model.actions.values():
        yield from _in_type(file, action.context, action.offset, action.id)


def _untold(file: Text, model: SchemaModel) -> Iterator[Finding]:
    """What actions promise of the context. A ``forbid`` that reads it would validate and never apply."""
    for action in model.actions.values():
        if action.principals is not None:
            word = next((each for each in file.words if each.start >= action.offset), None)
            for sentence in untold(action):
                yield finding(
                    "untold",
                    file,
                    action.offset,
                    word.end if word else action.offset,
                    f"of {action.id[:80]}, {sentence}",
                    "make it optional, or remove it; what the gate tells is in docs/policy-model.md",
                )


def _in_type(file: Text, kind: CedarType, offset: int, owner: str) -> Iterator[Finding]:
    if isinstance(kind, SetType):
        yield from _in_type(file, kind.element, offset, owner)
    elif isinstance(kind, RecordType):
        counted = Counter(each.name for each in kind.attributes)
        for name in [name for name, number in counted.items() if number > 1]:
            words = [each for each in _named(file, name) if each.start > offset]
            word = words[1] if len(words) > 1 else None
            yield _at(
                file, word, f"{owner[:80]} declares {name[:80]} twice, and the last one counts", "remove one of the two"
            )


def _at(file: Text, word: Token | None, message: str, fix: str) -> Finding:
    return finding("schema", file, word.start if word else 0, word.end if word else 0, message, fix)


def _named(file: Text, name: str) -> list[Token]:
    return [each for each in file.words if each.kind in ("name", "string") and _value(each) == name]


def _value(word: Token) -> str:
    return unquoted(word.text) if word.kind == "string" else word.text


def _value_of(written: str) -> str:
    return unquoted(written) if written.startswith('"') else written.rpartition("::")[2]


def _declares(file: Text, word: Token, keyword: str | None = None) -> bool:
    """Whether a name stands behind ``entity``, ``type`` or ``action``, possibly in a list."""
    index = _index(file, word)
    while index >= 2 and file.words[index - 1].text == ",":
        index -= 2
    before = file.words[index - 1].text if index else ""
    return before == keyword if keyword else before in _DECLARING


def _index(file: Text, word: Token) -> int:
    return file.words.index(word)
