"""Mutants of recorded histories: whatever is edited, dropped, doubled, moved or spliced has to be noticed.

Three families, each systematic and in a fixed order:

* fields: every field of every event, found in the protobuf descriptors, changed, cleared, or given where it is unset;
* statements: the tokens in headers, results and failures, bent, dropped, doubled and taken from elsewhere;
* events: dropped, doubled, swapped, moved, cut off and spliced, with and without numbering them anew.

``python -m tests.audit.mutants [RUN ...]`` records the runs and prints the table (:mod:`tests.audit.judging`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from temporalio.api.common.v1 import Payload
from temporalio.api.history.v1 import HistoryEvent

from exequatur.audit.activities import LOCAL_MARKER
from exequatur.errors import StatementError
from exequatur.gate.wire import ACTIVITY_HEADER, PREFIX, RECEIPT, START_HEADER, start_header
from exequatur.statements.encoding import from_base64url, to_base64url
from exequatur.statements.packing import pack, unpack

STRANGERS = ("base", "sequential", "retried", "local", "ungoverned")
"""The runs that others are spliced with: one of the same workflow, and some of other ones."""

Events = tuple[HistoryEvent, ...]
Edit = Callable[[Any], None]


@dataclass(frozen=True)
class Mutant:
    """A history that is not the one that was recorded.

    Args:
        run: The run that it was made from.
        where: What was touched: an event's kind and a field path, or a kind of change to the events.
        how: What was done to it.
        event_id: The event that was touched, by its number in the recorded history.
        events: What an auditor is given.
    """

    run: str
    where: str
    how: str
    event_id: int
    events: Events

    def __str__(self) -> str:
        return f"{self.run} / {self.event_id} / {self.where} / {self.how}"


def kind_of(event: HistoryEvent) -> str:
    """What an event is, in the words of its attributes."""
    return (event.WhichOneof("attributes") or "").removesuffix("_event_attributes")


def attributes_of(event: HistoryEvent) -> Any:
    return getattr(event, event.WhichOneof("attributes") or "")


# Fields.


class Pool:
    """Values that stand in the same field elsewhere, so that what a mutant says is plausible."""

    def __init__(self, runs: Mapping[str, Events]) -> None:
        self._values: dict[str, dict[Any, None]] = {}
        for events in runs.values():
            for event in events:
                self._collect(event)

    def _collect(self, message: Message) -> None:
        for descriptor, value in message.ListFields():
            if descriptor.message_type is None:
                if not descriptor.is_repeated:
                    self._values.setdefault(descriptor.full_name, {})[value] = None
            elif descriptor.message_type.GetOptions().map_entry:
                for each in value.values():
                    if isinstance(each, Message):
                        self._collect(each)
            else:
                for each in value if descriptor.is_repeated else (value,):
                    self._collect(each)

    def other(self, descriptor: FieldDescriptor, value: Any) -> Any:
        """A value that another event has in this field, or one that is made up."""
        if descriptor.enum_type is not None:
            numbers = [each.number for each in descriptor.enum_type.values if each.number]
            return next((number for number in numbers if number != value), 0)
        if descriptor.type == FieldDescriptor.TYPE_BOOL:
            return not value
        if isinstance(value, int | float):
            return value + 1
        seen = next((each for each in self._values.get(descriptor.full_name, ()) if each and each != value), None)
        if isinstance(value, bytes):
            return seen if seen is not None else value + b"x"
        return seen if seen is not None else f"{value}x"


def field_edits(message: Message, pool: Pool, *, given: int = 2) -> Iterator[tuple[str, str, Edit]]:
    """Everything that can be done to the fields of a message: path, what is done, and a function that does it.

    Args:
        message: Of any type.
        pool: Plausible values.
        given: To how many levels unset fields are given a value.
    """
    for field in message.DESCRIPTOR.fields:
        name, is_set = field.name, _is_set(message, field)
        if field.containing_oneof is not None and field.containing_oneof.name == "attributes" and not is_set:
            continue  # events of another kind are made by `exchanged`
        if not is_set:
            if given:
                yield name, "given", lambda it, field=field: _give(it, field, pool)
            continue
        yield name, "cleared", lambda it, name=name: it.ClearField(name)
        value = getattr(message, name)
        if field.message_type is None:
            if field.is_repeated:
                yield name, "longer", lambda it, name=name, field=field: getattr(it, name).append(_made_up(field))
            else:
                other = pool.other(field, value)
                yield name, "changed", lambda it, name=name, to=other: setattr(it, name, to)
        elif field.message_type.GetOptions().map_entry:
            yield from _map_edits(name, value, field, pool, given)
        elif field.is_repeated:
            yield name, "doubled", lambda it, name=name: getattr(it, name).append(getattr(it, name)[0])
            for index, each in enumerate(value):
                for path, how, edit in _message_edits(each, pool, given - 1):
                    yield f"{name}.{path}", how, _within(name, edit, index)
        else:
            for path, how, edit in _message_edits(value, pool, given - 1):
                yield f"{name}.{path}", how, _within(name, edit)


def _within(name: str, edit: Edit, key: Any = None) -> Edit:
    if key is None:
        return lambda it: edit(getattr(it, name))
    return lambda it: edit(getattr(it, name)[key])


def _is_set(message: Message, field: FieldDescriptor) -> bool:
    if field.is_repeated:
        return bool(len(getattr(message, field.name)))
    return message.HasField(field.name) if field.has_presence else bool(getattr(message, field.name))


def _message_edits(message: Message, pool: Pool, given: int) -> Iterator[tuple[str, str, Edit]]:
    kind = message.DESCRIPTOR.name
    if kind in ("Timestamp", "Duration"):
        for what, seconds in (("a second later", 1), ("a month later", 2_592_000), ("a month earlier", -2_592_000)):
            yield "seconds", what, lambda it, by=seconds: setattr(it, "seconds", it.seconds + by)
        return
    yield from field_edits(message, pool, given=max(given, 0))
    if isinstance(message, Payload):
        yield "data", "bent", lambda it: setattr(it, "data", bent(it.data))
        yield from _json_edits(message)


def _map_edits(
    name: str, value: Any, field: FieldDescriptor, pool: Pool, given: int
) -> Iterator[tuple[str, str, Edit]]:
    holds = field.message_type.fields_by_name["value"]
    for key in sorted(value):
        at = f"{name}[{key}]"
        yield at, "dropped", lambda it, key=key: getattr(it, name).pop(key)
        if holds.message_type is None:
            for how, to in (("cleared", type(value[key])()), ("changed", _twisted(value[key]))):
                yield at, how, lambda it, key=key, to=to: getattr(it, name).__setitem__(key, to)
        else:
            yield at, "renamed", lambda it, key=key: _rename(getattr(it, name), key)
            for path, how, edit in _message_edits(value[key], pool, given - 1):
                yield f"{at}.{path}", how, _within(name, edit, key)
    for key in ("other", f"{PREFIX}other"):
        yield f"{name}[{key}]", "given", lambda it, key=key: _give_entry(getattr(it, name), key, holds)


def _twisted(value: Any) -> Any:
    return bent(value) if isinstance(value, bytes) else f"{value}x" if isinstance(value, str) else value + 1


def _rename(mapping: Any, key: str) -> None:
    mapping[f"{key}x"].CopyFrom(mapping[key])
    del mapping[key]


def _give_entry(mapping: Any, key: str, holds: FieldDescriptor) -> None:
    if holds.message_type is None:
        mapping[key] = _made_up(holds)
    elif holds.message_type.name == "Payload":
        mapping[key].CopyFrom(Payload(metadata={"encoding": b"json/plain"}, data=b'"given"'))
    else:
        mapping[key].SetInParent()


def _give(message: Message, field: FieldDescriptor, pool: Pool, depth: int = 2) -> None:
    """Give an unset field a value; in a message, to all of its fields that stand in no oneof."""
    if field.message_type is None:
        if field.is_repeated:
            getattr(message, field.name).append(_made_up(field))
        else:
            setattr(message, field.name, pool.other(field, getattr(message, field.name)))
    elif field.message_type.GetOptions().map_entry:
        _give_entry(getattr(message, field.name), "given", field.message_type.fields_by_name["value"])
    else:
        inner = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
        inner.SetInParent()
        for each in inner.DESCRIPTOR.fields if depth else ():
            if each.containing_oneof is None or each is each.containing_oneof.fields[0]:
                _give(inner, each, pool, depth - 1)


def _made_up(field: FieldDescriptor) -> Any:
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    return {FieldDescriptor.TYPE_STRING: "given", FieldDescriptor.TYPE_BYTES: b"given"}.get(field.type, 1)


def _json_edits(payload: Payload) -> Iterator[tuple[str, str, Edit]]:
    """The members of a JSON payload, such as the details of a failure or of a local activity's marker."""
    try:
        document = json.loads(payload.data)
    except ValueError:
        return
    if not isinstance(document, dict):
        return
    for name in document:
        without = {key: value for key, value in document.items() if key != name}
        for how, changed in (("dropped", without), ("changed", {**document, name: _other_json(document[name])})):
            data = json.dumps(changed, separators=(",", ":")).encode()
            yield f"data.{name}", how, lambda it, data=data: setattr(it, "data", data)


def _other_json(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return [value]


def bent(data: bytes) -> bytes:
    """The data with one bit turned, in the middle."""
    at = len(data) // 2
    return data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :] if data else b"\0"


def edited(event: HistoryEvent, edit: Edit) -> HistoryEvent:
    copy = HistoryEvent()
    copy.CopyFrom(event)
    edit(copy)
    return copy


def _put(events: Events, at: int, *events_there: HistoryEvent) -> Events:
    return (*events[:at], *events_there, *events[at + 1 :])


def mutants_of_fields(run: str, events: Events, pool: Pool) -> Iterator[Mutant]:
    for at, event in enumerate(events):
        kind = kind_of(event)
        for path, how, edit in field_edits(event, pool):
            where = path.replace(f"{kind}_event_attributes", kind, 1)
            where = where if where.startswith(kind) else f"{kind}:{where}"
            yield Mutant(run, where, how, event.event_id, _put(events, at, edited(event, edit)))


# Statements.


def _payloads(event: HistoryEvent) -> Iterator[tuple[str, Callable[[HistoryEvent], Any], bool]]:
    """Where tokens stand in an event: a name, how to get the payload, and whether its metadata holds them."""
    kind = kind_of(event)
    if kind in ("workflow_execution_started", "workflow_execution_continued_as_new", _CHILD):
        if START_HEADER in attributes_of(event).header.fields:
            yield "start header", lambda it: attributes_of(it).header.fields[START_HEADER], False
    elif kind == "activity_task_scheduled":
        if ACTIVITY_HEADER in attributes_of(event).header.fields:
            yield "activity header", lambda it: attributes_of(it).header.fields[ACTIVITY_HEADER], False
    elif kind == "activity_task_completed":
        if attributes_of(event).result.payloads and RECEIPT in attributes_of(event).result.payloads[0].metadata:
            yield "receipt", lambda it: attributes_of(it).result.payloads[0], True
    elif kind == "marker_recorded" and "result" in attributes_of(event).details:
        yield "local receipt", lambda it: attributes_of(it).details["result"].payloads[0], True


_CHILD = "start_child_workflow_execution_initiated"


def _tokens(payload: Payload, what: str) -> list[str]:
    """The tokens in a payload; none where a codec has wrapped it."""
    try:
        if what == "start header":
            return str(json.loads(payload.data)).split("~")
        return unpack(payload.metadata.get(RECEIPT, b"") if "receipt" in what else payload.data)
    except (ValueError, StatementError):
        return []


def _write(payload: Payload, what: str, tokens: Sequence[str]) -> None:
    if what == "start header":
        payload.data = start_header(tokens).data
    elif "receipt" in what:
        payload.metadata[RECEIPT] = pack(tokens) if tokens else b""
    else:
        payload.data = pack(tokens) if tokens else b""


def mutants_of_statements(run: str, events: Events, others: Mapping[str, Events]) -> Iterator[Mutant]:
    strangers = {
        what: (name, tokens)
        for name, history in others.items()
        if name != run
        for event in history
        for what, get, _ in _payloads(event)
        for tokens in (_tokens(get(event), what),)
    }
    mine: dict[str, list[list[str]]] = {}
    for at, event in enumerate(events):
        for what, get, is_metadata in _payloads(event):
            tokens = _tokens(get(event), what)
            if not tokens:
                continue

            def written(tokens: Sequence[str], how: str, at: int = at, what: str = what, get: Any = get) -> Mutant:
                event = events[at]
                changed = edited(event, lambda it: _write(get(it), what, tokens))
                return Mutant(run, f"{kind_of(event)}: {what}", how, event.event_id, _put(events, at, changed))

            for number, token in enumerate(tokens):
                rest = [*tokens[:number], *tokens[number + 1 :]]
                for part, name in enumerate(("header", "claims", "signature")):
                    yield written([*tokens[:number], _bent_token(token, part), *tokens[number + 1 :]],
                                  f"token {number}: {name} bent")  # fmt: skip
                yield written(rest, f"token {number} dropped")
                yield written([*tokens[: number + 1], token, *tokens[number + 1 :]], f"token {number} doubled")
            yield written(tokens[::-1], "tokens reversed") if len(tokens) > 1 else written([], "emptied")
            for source, theirs in (
                ("another event", mine.get(what, [[]])[-1]),
                ("another run", _stranger(strangers, what)),
            ):
                if theirs and theirs != tokens:
                    yield written(theirs, f"all of {source}")
                    for number, token in enumerate(tokens):
                        if number < len(theirs) and theirs[number] != token:
                            yield written([*tokens[:number], theirs[number], *tokens[number + 1 :]],
                                          f"token {number} of {source}")  # fmt: skip
            for share in (0, 1, 7, 33, 66, 99) if is_metadata or what == "activity header" else ():
                changed = edited(event, lambda it, share=share, what=what, get=get: _bend_packed(get(it), what, share))
                yield Mutant(
                    run, f"{kind_of(event)}: {what}", f"bit turned at {share} %", event.event_id,
                    _put(events, at, changed),
                )  # fmt: skip
            mine.setdefault(what, []).append(tokens)


def _stranger(strangers: Mapping[str, tuple[str, list[str]]], what: str) -> list[str]:
    return strangers[what][1] if what in strangers else []


def _bent_token(token: str, part: int) -> str:
    """A token with one letter or digit of a part changed; header and claims stay JSON."""
    parts = token.split(".")
    text = bytearray(from_base64url(parts[part]))
    at = len(text) // 2
    while part < 2 and not chr(text[at]).isalnum():
        at += 1
    text[at] = ord("0") if text[at] != ord("0") else ord("1")
    parts[part] = to_base64url(bytes(text))
    return ".".join(parts)


def _bend_packed(payload: Payload, what: str, share: int) -> None:
    data = bytearray(payload.metadata[RECEIPT] if "receipt" in what else payload.data)
    data[len(data) * share // 100] ^= 4
    if "receipt" in what:
        payload.metadata[RECEIPT] = bytes(data)
    else:
        payload.data = bytes(data)


# Events.

_REFERENCE = re.compile(r"(?:^|_)event_id$")


def renumbered(events: Sequence[HistoryEvent]) -> Events:
    """The events numbered from 1, with what refers to them; what refers to an event that is gone keeps its number."""
    numbers = {event.event_id: number for number, event in reversed(list(enumerate(events, 1)))}
    result = []
    for number, event in enumerate(events, 1):
        copy = edited(event, lambda it, number=number: setattr(it, "event_id", number))
        if copy.WhichOneof("attributes"):
            attributes = attributes_of(copy)
            for field in attributes.DESCRIPTOR.fields:
                if (
                    _REFERENCE.search(field.name)
                    and field.message_type is None
                    and field.name != "parent_initiated_event_id"
                ):
                    known = getattr(attributes, field.name)
                    setattr(attributes, field.name, numbers.get(known, known))
        result.append(copy)
    return tuple(result)


def families(events: Events) -> dict[int, list[int]]:
    """The places of the events of each activity, by the place of the first."""
    found: dict[int, list[int]] = {}
    places = {event.event_id: place for place, event in enumerate(events)}
    for place, event in enumerate(events):
        kind = kind_of(event)
        if kind == "activity_task_scheduled" or (kind == "marker_recorded" and _is_local(event)):
            found[place] = [place]
        elif kind.startswith("activity_task_"):
            first = places.get(attributes_of(event).scheduled_event_id)
            if first in found:
                found[first].append(place)
    return found


def _is_local(event: HistoryEvent) -> bool:
    return bool(event.marker_recorded_event_attributes.marker_name == LOCAL_MARKER)


def mutants_of_events(run: str, events: Events, others: Mapping[str, Events]) -> Iterator[Mutant]:
    last = len(events) - 1

    def both(where: str, how: str, at: int, changed: Sequence[HistoryEvent]) -> Iterator[Mutant]:
        number = events[min(at, last)].event_id
        yield Mutant(run, where, how, number, tuple(changed))
        anew = renumbered(changed)
        if anew != tuple(changed):
            yield Mutant(run, where, f"{how}, numbered anew", number, anew)

    for at, event in enumerate(events):
        kind = kind_of(event)
        yield from both(f"events: {kind}", "dropped", at, _put(events, at))
        yield from both(f"events: {kind}", "doubled", at, _put(events, at, event, event))
        if at < last:
            following = kind_of(events[at + 1])
            swapped = (*events[:at], events[at + 1], event, *events[at + 2 :])
            yield from both(f"events: {kind}, {following}", "swapped", at, swapped)
            moved = (*_put(events, at)[:-1], event, events[-1])
            if at + 2 < last:
                yield from both(f"events: {kind}", "moved before the last", at, moved)
        if at:
            yield Mutant(run, "events: cut", f"cut off before {kind}", event.event_id, events[:at])
    for first, places in families(events).items():
        kind = "local activity" if kind_of(events[first]) == "marker_recorded" else "activity"
        without = [event for place, event in enumerate(events) if place not in places]
        yield from both(f"events: {kind}", "dropped", first, without)
        own = [events[place] for place in places]
        twice = _shifted(own, last + 10)
        yield from both(
            f"events: {kind}", "doubled", first, (*events[: places[-1] + 1], *twice, *events[places[-1] + 1 :])
        )
        if len(places) > 1:
            unfinished = [event for place, event in enumerate(events) if place not in places[1:]]
            yield from both(f"events: {kind}", "its end dropped", first, unfinished)
    for name, theirs in others.items():
        if name == run:
            continue
        for first, places in list(families(theirs).items())[:2]:
            guest = _shifted([theirs[place] for place in places], last + 10)
            what = "local activity" if kind_of(theirs[first]) == "marker_recorded" else "activity"
            for at in (4, last):
                if at <= last:
                    yield from both(f"events: {what} of {name}", "inserted", at, (*events[:at], *guest, *events[at:]))
        for at in (4, len(events) // 2, last):
            if 0 < at <= last and len(theirs) > at:
                yield from both(f"events: end of {name}", "put in place of its own", at, (*events[:at], *theirs[at:]))
        yield Mutant(run, f"events: start of {name}", "put in place of its own", 1, (theirs[0], *events[1:]))


def _shifted(events: Sequence[HistoryEvent], by: int) -> list[HistoryEvent]:
    """Events with numbers that are not in use, and references among them moved along."""
    numbers = {event.event_id: event.event_id + by * 100 for event in events}
    result = []
    for event in events:
        copy = edited(event, lambda it: setattr(it, "event_id", numbers[it.event_id]))
        attributes = attributes_of(copy)
        for field in attributes.DESCRIPTOR.fields:
            if _REFERENCE.search(field.name) and field.message_type is None:
                known = getattr(attributes, field.name)
                setattr(attributes, field.name, numbers.get(known, known))
        result.append(copy)
    return result


# Exchanges between events and runs.

_EXCHANGED = (
    ("activity_task_scheduled", "header"),
    ("activity_task_scheduled", "input"),
    ("activity_task_scheduled", "activity_type"),
    ("activity_task_scheduled", "activity_id"),
    ("activity_task_scheduled", "task_queue"),
    ("activity_task_scheduled", None),
    ("activity_task_completed", "result"),
    ("activity_task_completed", None),
    ("activity_task_failed", "failure"),
    ("marker_recorded", "details"),
    ("marker_recorded", "failure"),
    ("workflow_execution_started", "header"),
    ("workflow_execution_started", "input"),
    ("workflow_execution_started", "workflow_type"),
    ("workflow_execution_started", None),
    ("workflow_execution_continued_as_new", "header"),
    (_CHILD, "header"),
)


def mutants_of_exchanges(run: str, events: Events, others: Mapping[str, Events]) -> Iterator[Mutant]:
    for kind, part in _EXCHANGED:
        places = [at for at, event in enumerate(events) if kind_of(event) == kind]
        for at in places:
            sources = [("the same run", events[place]) for place in places if place != at][:2]
            for name, theirs in others.items():
                if name != run:
                    sources += [(name, event) for event in theirs if kind_of(event) == kind][:1]
            for name, source in sources:
                changed = edited(events[at], lambda it, source=source, part=part: _take(it, source, part))
                if changed != events[at]:
                    where = f"{kind}.{part}" if part else kind
                    yield Mutant(run, where, f"taken from {name}", events[at].event_id, _put(events, at, changed))
    yield from _laundered(run, events)


def _take(event: HistoryEvent, source: HistoryEvent, part: str | None) -> None:
    mine, theirs = attributes_of(event), attributes_of(source)
    for name in (
        [part] if part else [each.name for each in mine.DESCRIPTOR.fields if not each.name.endswith("event_id")]
    ):
        mine.ClearField(name)
        value = getattr(theirs, name)
        field = mine.DESCRIPTOR.fields_by_name[name]
        if field.message_type is not None:
            if field.is_repeated:
                getattr(mine, name).MergeFrom(value)
            elif theirs.HasField(name):
                getattr(mine, name).CopyFrom(value)
        elif field.is_repeated:
            getattr(mine, name).extend(value)
        else:
            setattr(mine, name, value)


def _laundered(run: str, events: Events) -> Iterator[Mutant]:
    """Our statements taken out: only at the start, only at the activities, only of the results, and everywhere."""
    starts = {"workflow_execution_started", "workflow_execution_continued_as_new", _CHILD}
    for how, kinds in {
        "of the start": starts,
        "of activities": {"activity_task_scheduled"},
        "of results": {"activity_task_completed", "marker_recorded"},
        "of start and activities": {*starts, "activity_task_scheduled"},
        "of everything": {kind_of(event) for event in events},
    }.items():
        changed = tuple(edited(each, stripped) if kind_of(each) in kinds else each for each in events)
        if changed != events:
            yield Mutant(run, "statements", f"taken out {how}", 1, changed)


def stripped(message: Any) -> None:
    """Take every header and metadata entry of ours out of a message."""
    if isinstance(message, Payload):
        for key in [key for key in message.metadata if key.startswith(PREFIX)]:
            del message.metadata[key]
        return
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            for key in [key for key in value if key.startswith(PREFIX)]:
                del value[key]
            if field.message_type.fields_by_name["value"].message_type is not None:
                for key in value:
                    stripped(value[key])
        else:
            for each in value if field.is_repeated else (value,):
                stripped(each)


def mutants(run: str, runs: Mapping[str, Events], pool: Pool, *, most: int | None = None) -> Iterator[Mutant]:
    """The mutants of one run; those that came out as they were recorded are left out.

    Args:
        run: Its name.
        runs: All runs.
        pool: Plausible values.
        most: Of events of one kind, how many are edited in the same way; all of them if it is ``None``.
    """
    events = runs[run]
    others = {name: runs[name] for name in STRANGERS if name in runs}
    fields: dict[tuple[str, str], list[Mutant]] = {}
    for mutant in mutants_of_fields(run, events, pool):
        fields.setdefault((mutant.where, mutant.how), []).append(mutant)
    for mutant in (
        *(mutant for alike in fields.values() for mutant in (alike if most is None else _spread(alike, most))),
        *mutants_of_statements(run, events, others),
        *mutants_of_exchanges(run, events, others),
        *mutants_of_events(run, events, others),
    ):
        if mutant.events != events:
            yield mutant


def _spread(alike: Sequence[Mutant], most: int) -> Sequence[Mutant]:
    """Some of them: always the first and the last."""
    if len(alike) <= most:
        return alike
    return [alike[round(place * (len(alike) - 1) / (most - 1))] for place in range(most)]


if __name__ == "__main__":
    from tests.audit.judging import main

    sys.exit(main(sys.argv[1:]))
