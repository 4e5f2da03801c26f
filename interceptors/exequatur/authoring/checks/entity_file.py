"""What is wrong with entities.json, and at which entity."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any

from cedarpy import Entities, Schema

from exequatur.authoring.checks.findings import MAX_NAME, Finding, did_you_mean, finding
from exequatur.authoring.checks.texts import Text
from exequatur.authoring.checks.world import is_action
from exequatur.authoring.expression import reference
from exequatur.policy.entities import Uid, missing_members, uid_of
from exequatur.policy.schema import EntityDeclaration, SchemaModel
from exequatur.policy.types import misfit

_BLANK = re.compile(r"[ \t\r\n]*")
_MAX_MESSAGE = 300
_LIST = 'write a list: [{"uid": …, "attrs": {}, "parents": []}]'
_JSON_FIXES = (
    ("property name", "write names in double quotes, and no comma behind the last of them"),
    ("expected behind the comma", "write another entity, or remove the comma"),
    ("comma or the end", "write a comma between two entities"),
    ("delimiter", "write what is missing before this"),
    ("Unterminated", "end the string with a double quote"),
    ("Expecting value", "write a value here, strings and names in double quotes"),
    ("follows", "remove it, or put it into the list"),
    ("escape", "write \\\\ for a backslash"),
    ("control character", "write \\n for the end of a line"),
)
#: Entities that are looked at one by one once Cedar refuses the file; more findings help nobody.
_MAX_FINDINGS = 200
#: Names that a misspelt one is compared with.
_MAX_COMPARED = 1000


@dataclass(frozen=True, slots=True)
class Located:
    """An entity and the offsets between which it is written."""

    document: Any
    start: int
    end: int


def read(
    file: Text, schema: Schema | None, model: SchemaModel | None
) -> tuple[list[dict[str, Any]] | None, list[Finding]]:
    """Read the entities.

    Args:
        file: The file.
        schema: Entities must conform to it.
        model: The schema as data.

    Returns:
        The entities that are sound in themselves, or None if the file is no list of any, and what is wrong.
    """
    try:
        located = list(_elements(file.text))
    except json.JSONDecodeError as error:
        return None, [_no_json(file, error)]
    except RecursionError:
        return None, [finding("entities", file, 0, 1, "the JSON is nested too deeply", _LIST)]
    except ValueError as error:
        return None, [finding("entities", file, 0, 1, str(error), _LIST)]
    sound: dict[Uid, Located] = {}
    findings: list[Finding] = []
    for each in located:
        try:
            uid = uid_of(each.document["uid"])
            list(map(uid_of, each.document.get("parents", [])))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            findings.append(_at(file, each, *_shapeless(each.document)))
            continue
        if uid in sound:
            line = file.place(sound[uid].start).line
            findings.append(_at(file, each, f"{reference(*uid)} is already on line {line}", "merge the two entries"))
        else:
            sound[uid] = each
    findings += _refused(file, sound, schema, model)
    findings += islice(_unknown_parents(file, sound), _MAX_FINDINGS)
    return [each.document for each in sound.values()], findings[:_MAX_FINDINGS]


def _no_json(file: Text, error: json.JSONDecodeError) -> Finding:
    if not file.text.strip():
        fix = f"write [] if there are none, else {_LIST.removeprefix('write ')}"
        return finding("entities", file, 0, 1, "this is not JSON: the file is empty", fix)
    fix = next((fix for part, fix in _JSON_FIXES if part in error.msg), _LIST)
    return finding("entities", file, error.pos, error.pos + 1, f"this is not JSON: {error.msg}", fix)


def _elements(text: str) -> Iterator[Located]:
    """The elements of a JSON list with their places."""

    def no_number(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    decoder = json.JSONDecoder(parse_constant=no_number)
    at = _skip(text, 0)
    if at >= len(text) or text[at] != "[":
        decoder.decode(text)
        raise ValueError("this is no list of entities")
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        document, end = decoder.raw_decode(text, at)
        yield Located(document, at, end)
        at = _skip(text, end)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
            if text[at : at + 1] == "]":
                raise json.JSONDecodeError("another entity is expected behind the comma", text, at)
        elif text[at : at + 1] != "]":
            raise json.JSONDecodeError("a comma or the end of the list is expected", text, at)
    at = _skip(text, at + 1)
    if at < len(text):
        raise json.JSONDecodeError("something follows the list", text, at)


def _skip(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    return match.end() if match else at


def _shapeless(document: Any) -> tuple[str, str]:
    if not isinstance(document, Mapping) or "uid" not in document:
        return "this entity has no uid", 'write "uid": {"type": "…", "id": "…"}'
    try:
        uid_of(document["uid"])
    except ValueError as error:
        return str(error), 'write "uid": {"type": "…", "id": "…"}'
    return "a parent is no entity", 'write each as {"type": "…", "id": "…"}'


def _refused(
    file: Text, sound: Mapping[Uid, Located], schema: Schema | None, model: SchemaModel | None
) -> Iterator[Finding]:
    """What Cedar says of all entities, and of each by itself if it says anything."""
    circle = _circle(sound)
    if circle:
        # Cedar would follow it, and says only that there is one.
        names = " in ".join(reference(*uid) for uid in circle[:5])
        yield _at(file, sound[circle[0]], f"entities are in each other: {names}", "remove one of the parents")
    whole = None if circle else _complaint([each.document for each in sound.values()], schema)
    if whole is None and not circle:
        return
    alone = False
    for uid, each in sound.items():
        complaint = _complaint([each.document], schema)
        if complaint is None:
            continue
        alone = True
        key, message, fix = _explained(uid, each.document, model)
        start = file.text.find(json.dumps(key, ensure_ascii=False), each.start, each.end) if key is not None else -1
        end = start + len(json.dumps(key, ensure_ascii=False)) if start >= 0 else each.end
        yield finding(
            "entities",
            file,
            start if start >= 0 else each.start,
            end,
            message or f"{reference(*uid)}: {complaint}",
            fix,
        )
    if whole is not None and not alone:
        yield finding("entities", file, 0, 1, whole)


def _complaint(documents: list[Any], schema: Schema | None) -> str | None:
    try:
        Entities.from_json_str(json.dumps(documents), schema)
    except (ValueError, RecursionError) as error:
        return str(error)[:_MAX_MESSAGE]
    return None


def _explained(uid: Uid, document: Mapping[str, Any], model: SchemaModel | None) -> tuple[str | None, str, str]:
    """A key near which the fault stands, the message and the next step; Cedar says only that there is one."""
    name = reference(*uid)
    if not isinstance(document.get("attrs", {}), Mapping):
        return "attrs", f"the attrs of {name} are no object", 'write "attrs": {}'
    if not isinstance(document.get("parents", []), list):
        return "parents", f"the parents of {name} are no list", 'write "parents": []'
    if (lacking := missing_members(document)) is not None:
        return None, f"{name}: {lacking[0]}", lacking[1]
    if model is None or is_action(uid[0]):
        return None, "", ""
    declared = model.entities.get(uid[0])
    if declared is None:
        return "type", f"there is no entity type {uid[0][:80]} in the schema", did_you_mean(uid[0], model.entities)
    if declared.choices is not None and uid[1] not in declared.choices:
        return "id", f"{name} is not one of its type", did_you_mean(uid[1], declared.choices)
    return _attributes(name, document, declared) or _parents(name, document, declared) or (None, "", "")


def _attributes(
    name: str, document: Mapping[str, Any], declared: EntityDeclaration
) -> tuple[str | None, str, str] | None:
    attrs = document.get("attrs", {})
    known = [each.name for each in declared.attributes.attributes]
    for each in attrs:
        if each not in known:
            return each, f"{name} has an attribute {each[:80]} that is not in the schema", did_you_mean(each, known)
    for attribute in declared.attributes.attributes:
        if attribute.required and attribute.name not in attrs:
            return None, f"{name} has no {attribute.name}", "give it this attribute, or declare it optional"
    for each, value in attrs.items():
        attribute_type = declared.attributes.get(each)
        wrong = misfit(value, attribute_type.type, (each,)) if attribute_type is not None else None
        if wrong is not None:
            return each, f"{name}: {'.'.join(wrong[0])} {wrong[1]}", "correct the value"
    return None


def _parents(name: str, document: Mapping[str, Any], declared: EntityDeclaration) -> tuple[str | None, str, str] | None:
    for parent in document.get("parents", []):
        kind, own = uid_of(parent)
        if kind not in declared.parents:
            allowed = ", ".join(declared.parents) or "nothing"
            return own, f"{name} cannot be in {reference(kind, own)}", f"by the schema it can be in {allowed}"
    return None


def _unknown_parents(file: Text, sound: Mapping[Uid, Located]) -> Iterator[Finding]:
    """Parents that are not there, although others of their type are."""
    known: dict[str, list[str]] = {}
    for kind, name in sound:
        known.setdefault(kind, []).append(name)
    for uid, each in sound.items():
        for parent in map(uid_of, each.document.get("parents", [])):
            if parent in sound or parent[0] not in known or is_action(parent[0]):
                continue  # Entities of a type that the file does not have come with grants.
            close = get_close_matches(parent[1][:MAX_NAME], known[parent[0]][:_MAX_COMPARED], 1)
            quoted = json.dumps(parent[1], ensure_ascii=False)
            start = file.text.rfind(quoted, each.start, each.end)
            yield finding(
                "role-unknown",
                file,
                start if start >= 0 else each.start,
                start + len(quoted) if start >= 0 else each.end,
                f"{reference(*uid)[:80]} is in {reference(*parent)[:80]}, which is not in this file",
                f"did you mean {reference(parent[0], close[0])}?" if close else "add it, or remove this parent",
            )


def _circle(sound: Mapping[Uid, Located]) -> list[Uid]:
    """Entities that are in each other, the first one at the end again; empty if there are none."""
    done: set[Uid] = set()
    for begin in sound:
        path: list[Uid] = []
        on_path: set[Uid] = set()
        stack = [(begin, False)]
        while stack:
            uid, left = stack.pop()
            if left:
                path.pop()
                on_path.discard(uid)
                done.add(uid)
            elif uid in on_path:
                return [*path[path.index(uid) :], uid]
            elif uid not in done and uid in sound:
                path.append(uid)
                on_path.add(uid)
                stack.append((uid, True))
                stack += [(uid_of(each), False) for each in sound[uid].document.get("parents", [])]
    return []


def _at(file: Text, entity: Located, message: str, fix: str) -> Finding:
    return finding("entities", file, entity.start, entity.end, message[:_MAX_MESSAGE], fix)
