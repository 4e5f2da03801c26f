"""What somebody who can write to the Temporal server's database may do to a history; done to a copy of one.

Pure over the history's JSON form. What is changed is as cunning as it can be without the keys: where an event is taken
out, the others are numbered anew, so that the history looks whole.
"""

from __future__ import annotations

import base64
import copy
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from exequatur.console.sandbox.limits import SandboxError
from exequatur.errors import StatementError
from exequatur.gate.wire import RECEIPT, START_HEADER
from exequatur.statements.encoding import strict_json

FREE = "edit"
LONGEST_EDIT = 256 * 1024
"""Bytes of an event that a visitor wrote."""
_STRANGER = 'User::"mallory"'
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,6})?\Z")
_STARTED, _SCHEDULED = "workflowExecutionStartedEventAttributes", "activityTaskScheduledEventAttributes"
_COMPLETED = "activityTaskCompletedEventAttributes"
_ENDS = ("Completed", "Failed", "TimedOut", "Canceled")

Document = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """Something that can be done to an event.

    Args:
        kind: Its name.
        label: For a person.
    """

    kind: str
    label: str


@dataclass(frozen=True)
class Tampered:
    """A history that was changed.

    Args:
        document: The copy.
        sentence: What was done to it.
        before: What stood there, as text.
        after: What stands there now; empty where it was taken out.
    """

    document: Document
    sentence: str
    before: str
    after: str


LABELS = {
    "arguments": "Change the amount or another argument",
    "principal": "Say that somebody else asked for it",
    "grant": "Take the grant out",
    "request": "Take the signed request out",
    "result": "Claim another result",
    "swap": "Swap the result with that of another step",
    "receipt": "Take the receipt out",
    "forget": "Forget the whole step",
    "drop": "Drop this event",
    "cut": "Cut the history off here",
    FREE: "Edit the JSON freely",
}


def changes_of(document: Document) -> dict[int, tuple[Change, ...]]:
    """What can be done to each event.

    Args:
        document: A history, in its JSON form.

    Returns:
        By event id.
    """
    events = document["events"]
    completed = [each for each in events if _result_of(each) is not None]
    found: dict[int, tuple[Change, ...]] = {}
    for place, event in enumerate(events):
        kinds: list[str] = []
        if _STARTED in event:
            kinds += ["principal", "grant"] if _grant_of(event) is not None else []
            kinds += ["arguments"] if any(_changeable(each) for each in _payloads(event)) else []
        elif _SCHEDULED in event:
            kinds += ["arguments"] if any(_changeable(each) for each in _payloads(event)) else []
            kinds += ["request"] if _fields(event, _SCHEDULED) else []
            kinds += ["forget"]
        elif (payload := _result_of(event)) is not None:
            kinds += ["result"] if _json_of(payload) is not None else []
            kinds += ["swap"] if len(completed) > 1 else []
            kinds += ["receipt"] if RECEIPT in payload.get("metadata", {}) else []
        kinds += ["drop", "cut"] if 0 < place < len(events) - 1 else ["drop"] if place else []
        found[int(event["eventId"])] = tuple(Change(kind, LABELS[kind]) for kind in [*kinds, FREE])
    return found


def tampered(document: Document, event_id: int, kind: str, text: str | None = None) -> Tampered:
    """Change a copy of a history.

    Args:
        document: The history, in its JSON form; it is left as it is.
        event_id: Which event.
        kind: What to do to it.
        text: The event as JSON, for a free edit.

    Raises:
        SandboxError: This cannot be done to this event, or the text is no JSON object.
    """
    allowed = changes_of(document).get(event_id, ())
    if kind not in {each.kind for each in allowed}:
        raise SandboxError("That cannot be done to this event. Choose another change.", "input")
    changed = copy.deepcopy(document)
    place = next(place for place, each in enumerate(changed["events"]) if int(each["eventId"]) == event_id)
    if kind == FREE:
        return _edited(changed, place, text)
    return _CHANGES[kind](changed, place)


def readable(event: Mapping[str, Any]) -> Any:
    """An event with payloads as text where they are JSON, to look at."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            if "data" in value and isinstance(value.get("metadata"), dict):
                inner = _json_of(value)
                names = {name: _text(data) for name, data in value["metadata"].items()}
                return {"metadata": names, "data": value["data"] if inner is None else inner}
            return {name: shown(each) for name, each in value.items()}
        return [shown(each) for each in value] if isinstance(value, list) else value

    return shown(event)


def _arguments(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    payload = next(each for each in _payloads(event) if _changeable(each))
    value = _json_of(payload)
    before = json.dumps(value)
    _put(payload, _altered(value)[0])
    after = json.dumps(_json_of(payload))
    return Tampered(document, f"The arguments in event {event['eventId']} were changed.", before, after)


def _principal(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    payload = event[_STARTED]["header"]["fields"][START_HEADER]
    tokens = str(_json_of(payload)).split("~")
    header, claims, signature = tokens[0].split(".")
    told = json.loads(_unpadded(claims))
    before, told["sub"] = str(told.get("sub")), _STRANGER
    forged = base64.urlsafe_b64encode(json.dumps(told, separators=(",", ":")).encode()).rstrip(b"=").decode()
    _put(payload, "~".join([f"{header}.{forged}.{signature}", *tokens[1:]]))
    return Tampered(document, f"The grant in event {event['eventId']} now names somebody else.", before, _STRANGER)


def _grant(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    taken = event[_STARTED]["header"]["fields"].pop(START_HEADER)
    return Tampered(document, f"The grant was taken out of event {event['eventId']}.", str(_json_of(taken))[:400], "")


def _request(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    names = ", ".join(event[_SCHEDULED]["header"]["fields"])
    event[_SCHEDULED]["header"] = {}
    return Tampered(document, f"The signed request was taken out of event {event['eventId']}.", names, "")


def _result(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    payload = _payloads(event)[0]
    before = json.dumps(_json_of(payload))
    _put(payload, _claimed(_json_of(payload)))
    after = json.dumps(_json_of(payload))
    return Tampered(document, f"Event {event['eventId']} now claims another result.", before, after)


def _swap(document: Document, place: int) -> Tampered:
    events = document["events"]
    mine = events[place]
    other = next(each for each in events if each is not mine and _result_of(each) is not None)
    before = json.dumps(_json_of(_payloads(mine)[0]))
    mine[_COMPLETED]["result"], other[_COMPLETED]["result"] = other[_COMPLETED]["result"], mine[_COMPLETED]["result"]
    after = json.dumps(_json_of(_payloads(mine)[0]))
    swapped = f"The results of events {mine['eventId']} and {other['eventId']}, receipts and all, changed places."
    return Tampered(document, swapped, before, after)


def _receipt(document: Document, place: int) -> Tampered:
    event = document["events"][place]
    taken = _payloads(event)[0]["metadata"].pop(RECEIPT)
    return Tampered(
        document, f"The receipt was taken out of event {event['eventId']}.", f"{len(_unpadded(taken))} bytes", ""
    )


def _forget(document: Document, place: int) -> Tampered:
    asked = document["events"][place]["eventId"]
    gone = {place}
    for number, event in enumerate(document["events"]):
        attributes = _attributes(event)
        if str(attributes.get("scheduledEventId")) == str(asked) and any(
            name.startswith("activityTask") for name in event
        ):
            gone.add(number)
    return _without(document, gone, f"The step that event {asked} asked for was taken out, with its result.")


def _drop(document: Document, place: int) -> Tampered:
    number = document["events"][place]["eventId"]
    return _without(document, {place}, f"Event {number} was taken out, and the others were numbered anew.")


def _cut(document: Document, place: int) -> Tampered:
    events = document["events"]
    cut = f"Everything behind event {events[place]['eventId']} was cut off: {len(events) - place - 1} events."
    return _without(document, set(range(place + 1, len(events))), cut)


def _without(document: Document, gone: set[int], sentence: str) -> Tampered:
    events = document["events"]
    names = ", ".join(f"{events[each]['eventId']} {name_of(events[each])}" for each in sorted(gone)[:8])
    kept = [each for place, each in enumerate(events) if place not in gone]
    numbers = {str(each["eventId"]): str(number) for number, each in enumerate(kept, 1)}
    document["events"] = [_renumbered(each, numbers) for each in kept]
    return Tampered(document, sentence, names, "")


def _renumbered(value: Any, numbers: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {
            name: numbers.get(str(each), each)
            if name.endswith(("EventId", "eventId")) and not isinstance(each, dict | list)
            else _renumbered(each, numbers)
            for name, each in value.items()
        }
    return [_renumbered(each, numbers) for each in value] if isinstance(value, list) else value


def _edited(document: Document, place: int, text: str | None) -> Tampered:
    before = document["events"][place]
    if not isinstance(text, str) or len(text) > LONGEST_EDIT:
        raise SandboxError("The edited event is missing or too long.", "input", "text")
    try:
        event = strict_json(text)
        text.encode()
    except (ValueError, RecursionError) as error:
        raise SandboxError(f"The edited event is not JSON: {error}"[:300], "input", "text") from None
    if not isinstance(event, dict):
        raise SandboxError("The edited event is not a JSON object.", "input", "text")
    document["events"][place] = event
    return Tampered(
        document,
        f"Event {before['eventId']} was edited." if event != before else "Nothing was changed.",
        json.dumps(readable(before), indent=1),
        json.dumps(readable(event), indent=1),
    )


_CHANGES: dict[str, Callable[[Document, int], Tampered]] = {
    "arguments": _arguments,
    "principal": _principal,
    "grant": _grant,
    "request": _request,
    "result": _result,
    "swap": _swap,
    "receipt": _receipt,
    "forget": _forget,
    "drop": _drop,
    "cut": _cut,
}


def name_of(event: Mapping[str, Any]) -> str:
    """An event's type in words, for example ``Activity task scheduled``."""
    return str(event.get("eventType", "")).removeprefix("EVENT_TYPE_").replace("_", " ").capitalize()


def _attributes(event: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Any = next((value for name, value in event.items() if name.endswith("EventAttributes")), {})
    return found if isinstance(found, dict) else {}


def _payloads(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    attributes = _attributes(event)
    held = attributes.get("result" if _COMPLETED in event else "input") or {}
    return list(held.get("payloads", ()))


def _result_of(event: Mapping[str, Any]) -> dict[str, Any] | None:
    payloads = _payloads(event) if _COMPLETED in event else []
    return payloads[0] if payloads else None


def _fields(event: Mapping[str, Any], attributes: str) -> Mapping[str, Any]:
    fields = (event.get(attributes, {}).get("header") or {}).get("fields") or {}
    return fields if isinstance(fields, dict) else {}


def _grant_of(event: Mapping[str, Any]) -> str | None:
    payload = _fields(event, _STARTED).get(START_HEADER)
    text = None if payload is None else _json_of(payload)
    return text if isinstance(text, str) and text.partition("~")[0].count(".") == 2 else None


def _json_of(payload: Mapping[str, Any]) -> Any:
    """A payload's JSON, or ``None`` when it is something else."""
    if not _text(payload.get("metadata", {}).get("encoding", "")).startswith("json/"):
        return None
    try:
        return json.loads(_unpadded(payload["data"]))
    except (ValueError, KeyError, StatementError):
        return None


def _put(payload: dict[str, Any], value: Any) -> None:
    payload["data"] = base64.b64encode(json.dumps(value, separators=(",", ":")).encode()).decode()


def _unpadded(text: str) -> bytes:
    """The bytes of base64 in either alphabet, with or without its padding."""
    return base64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4))


def _text(data: str) -> str:
    try:
        return _unpadded(data).decode()
    except ValueError:
        return data


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _leaves(each)
    else:
        yield value


def _is_number(leaf: Any) -> bool:
    if isinstance(leaf, bool):
        return False
    return isinstance(leaf, int | float) or (isinstance(leaf, str) and _NUMBER.match(leaf) is not None)


def _changeable(payload: Mapping[str, Any]) -> bool:
    return any(isinstance(leaf, str | int | float) for leaf in _leaves(_json_of(payload)))


def _altered(value: Any) -> tuple[Any, bool]:
    """The value with its first number a hundred times as large; without numbers, with its first text another one."""
    numbers = any(map(_is_number, _leaves(value)))
    return _replaced(value, _is_number if numbers else lambda leaf: isinstance(leaf, str), _hundredfold)


def _replaced(value: Any, wanted: Callable[[Any], bool], new: Callable[[Any], Any]) -> tuple[Any, bool]:
    if isinstance(value, dict):
        made: dict[str, Any] = {}
        done = False
        for name, each in value.items():
            made[name], now = (each, False) if done else _replaced(each, wanted, new)
            done = done or now
        return made, done
    if isinstance(value, list):
        listed: list[Any] = []
        done = False
        for each in value:
            one, now = (each, False) if done else _replaced(each, wanted, new)
            listed.append(one)
            done = done or now
        return listed, done
    return (new(value), True) if wanted(value) else (value, False)


def _hundredfold(leaf: Any) -> Any:
    if isinstance(leaf, str):
        return str(Decimal(leaf) * 100) if _NUMBER.match(leaf) else f"{leaf}, and more"
    return leaf * 100


def _claimed(value: Any) -> Any:
    """Another result of the same shape."""
    changed, done = _altered(value)
    return changed if done and changed != value else "nothing happened"
