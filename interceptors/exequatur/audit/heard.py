"""Which messages a run has handled, in which order, and how: what its requests and its seal say, against its history.

Each request and the seal hold the head over all messages that were handled so far, and short digests of those since the
request before. A message is folded with its verdict, so that neither can be changed afterwards.

Rules, numbered as the code marks them (I are those of :mod:`exequatur.audit.messages`):

I5  Every message that a request or the seal lists is in the history, and together they give the head that it names.
I6  It was handled as its verdict demands: accepted only with a valid permit, refused only for what is wrong with it.
I7  A permit is used once, also over the runs that continue each other (M31 to M33).
I8  No message was handled before it came. Those that can wait for a handler, signals, are handled in their order for
    each name; all others in the order of the history.
I9  An update that was accepted is in the head of the next statement. A signal need not be: it may have no handler.
I10  The seal hands on the permits that were used.

Where a request left no event, what it listed is not known. Then the records of the run's workers help to find out what
came in between, and nothing is believed of them that the signed head does not confirm.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from exequatur.audit.evidence import MessageRecord
from exequatur.audit.history import RunHistory
from exequatur.audit.messages import Judged
from exequatur.audit.proofs import Proof
from exequatur.audit.report import Finding, finding
from exequatur.errors import StatementError
from exequatur.lineage.chain import fold_message, handled_message
from exequatur.statements.models import Seal, short_digest
from exequatur.statements.used import MAX_CARRIED, Used

_FULL = 256
"""So many are listed; more are only in the head."""
_MAX_WORK = 300_000
"""Hashes that a search may cost, about two seconds."""
_CLOSE = 10.0
"""Seconds around the end of a permit in which it is not held against the run how it judged: the history tells the time
of a message only by the task that brought it."""
_SPENT = ("M31", "M32")
_RULES = tuple(
    f"{letter}{number}" for letter, most in {"M": 60, "H": 5, "V": 12, "T": 6, "C": 9, "G": 6, "D": 12}.items()
    for number in range(1, most + 1)
)  # fmt: skip
"""Of refusals, to name one that should not have been."""


@dataclass(frozen=True)
class Told:
    """What a signed statement says of the messages so far.

    Args:
        what: Names it in findings.
        event_id: The event that it stands with.
        task: The start of the workflow task in which it was made.
        heard: Short digests since the request before.
        head: Over all.
        gap: Whether a request before it left no event.
    """

    what: str
    event_id: int
    task: int
    heard: tuple[str, ...]
    head: str | None
    gap: bool


@dataclass(frozen=True)
class Handled:
    """A message and what became of it.

    Args:
        message: As it was judged by itself.
        refused: The rule that refused it.
        signed: Whether a signed statement of the run says so.
    """

    message: Judged
    refused: str | None
    signed: bool


def told_by(history: RunHistory, proofs: Sequence[Proof], seal: Seal | None) -> Iterator[Told]:
    """What requests and the seal say, in the order in which they were made."""
    tasks = {
        each.event_id: each.workflow_task_completed_event_attributes.started_event_id
        for each in history.events
        if each.HasField("workflow_task_completed_event_attributes")
    }
    made = ((proof.request.claims, proof.activity.event) for proof in proofs if proof.request is not None)
    last = 0
    for claims, event in sorted(made, key=lambda each: each[0].seq):
        done = event.activity_task_scheduled_event_attributes.workflow_task_completed_event_id
        task = tasks.get(done, event.event_id)
        gap = claims.seq != last + 1
        yield Told(f"Request {claims.seq}", event.event_id, task, claims.heard, claims.messages, gap)
        last = claims.seq
    if seal is not None:
        end = history.events[-1].event_id + 1
        yield Told("The seal", end, end, seal.heard, seal.messages, seal.seq != last)


class _Exhausted(Exception):
    """The search has cost what it may."""


_Pick = tuple[int, str | None]
"""A message's place among all, and the rule that refused it."""


@dataclass
class Heard:
    """Follows what a run says that it handled.

    Args:
        messages: In the order of the history.
        records: What its workers wrote down, in the order of time.
        used: The permits that the run before it used.
        findings: What is wrong.
        handled: In the order in which they were handled.
        heads: After each of them.
    """

    messages: Sequence[Judged]
    records: Sequence[MessageRecord]
    used: Used
    findings: list[Finding] = field(default_factory=list)
    handled: list[Handled] = field(default_factory=list)
    heads: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._head: str | None = None
        self._pending = dict(enumerate(self.messages))
        self._places: dict[str, list[tuple[int, str | None, str]]] = {}
        for place, message in enumerate(self.messages):
            for rule in _verdicts(message):
                item = _item(message, rule)
                self._places.setdefault(short_digest(item), []).append((place, rule, item))
        self._latest = 0
        self._by_name: dict[tuple[str, str], int] = {}
        self._work = _MAX_WORK
        self._told: Told | None = None
        self._lost = False
        """Whether it is not known any more what was handled."""

    def wrong(self, code: str, sentence: str, message: Judged | None = None, event_id: int | None = None) -> None:
        if message is not None:
            sent = message.sent
            sentence, event_id = f"The {sent.kind} {sent.name[:100]}: {sentence}", sent.event_id
        self.findings.append(finding(code, sentence, event_id=event_id))

    def follow(self, told: Told) -> None:
        """Take in what one statement says (I5)."""
        self._told = told
        try:
            picks, missing = self._found(told)
        except _Exhausted:
            picks, missing = None, []
        if picks is None:
            self._lost = True
            sentence = f"{told.what} follows requests that left no event; what the run had heard could not be found out"
            self.wrong("messages-unchecked", sentence, event_id=told.event_id)
            self._head = told.head
            return
        for short in missing:  # [I5]
            self.wrong(
                "message-missing",
                f"{told.what} has heard a message ({short}) that the history does not have, or has otherwise",
                event_id=told.event_id,
            )
        for pick in picks:
            self._take(pick, told)
        if self._head != told.head:
            if not missing:  # [I5]
                sentence = f"{told.what} names another head of the messages than the history gives"
                self.wrong("messages-broken", sentence, event_id=told.event_id)
            self._head = told.head

    def _found(self, told: Told) -> tuple[list[_Pick] | None, list[str]]:
        """The messages that a statement tells of, and which of those that it lists are not there.

        Raises:
            _Exhausted: It was too much to search.
        """
        picks, missing = self._listed(told.heard, set())
        if not missing and self._ends(self._head, picks) == told.head:
            return picks, []
        if told.gap or len(told.heard) >= _FULL:
            if (recorded := self._recorded(told)) is not None:
                return self._suspected(recorded)
            if not missing and (searched := self._searched(told)) is not None:
                return searched, []
            if not missing:
                return None, []
        return self._suspected([(short, None) for short in told.heard])

    def _listed(self, shorts: Sequence[str], taken: set[int]) -> tuple[list[_Pick], list[str]]:
        picks: list[_Pick] = []
        missing, taken = [], set(taken)
        for short in shorts:
            known = ((place, rule) for place, rule, _ in self._places.get(short, ()))
            pick = next((each for each in known if each[0] in self._pending and each[0] not in taken), None)
            if pick is None:
                missing.append(short)
            else:
                picks.append(pick)
                taken.add(pick[0])
        return picks, missing

    def _suspected(self, items: Sequence[tuple[str, str | None]]) -> tuple[list[_Pick], list[str]]:
        """The same, also with verdicts that should not have been (I6)."""
        picks: list[_Pick] = []
        missing: list[str] = []
        taken: set[int] = set()
        for short, item in items:
            found, _ = self._listed([short], taken)
            found = found or [pick for pick in self._misjudged(short) if pick[0] not in taken][:1]
            if found:
                picks += found
                taken.add(found[0][0])
            else:
                missing.append(item or short)
        return picks, missing

    def _misjudged(self, short: str) -> Iterator[_Pick]:
        for place, message in self._pending.items():
            for rule in (None, *_RULES):
                self._spend()
                if short_digest(_item(message, rule)) == short:
                    yield place, rule

    def _recorded(self, told: Told) -> list[tuple[str, str | None]] | None:
        """What the workers wrote down between the last head and this one, if the head confirms it."""
        head = self._head
        items: list[tuple[str, str | None]] = []
        for record in self.records:
            if record.message is None or record.messages is None or head == told.head:
                continue
            self._spend()
            if fold_message(head, record.message) == record.messages:
                head = record.messages
                items.append((short_digest(record.message), f"{record.kind} {record.name[:100]}"))
        return items if head == told.head and items else None

    def _searched(self, told: Told) -> list[_Pick] | None:
        """Messages that came before those that are listed, and after them where the list is full."""
        before: list[_Pick] = []
        used, head = copy.deepcopy(self.used), self._head
        came = [place for place, message in self._pending.items() if message.sent.event_id < told.event_id]
        for place in (*came, None):
            picks, missing = self._listed(told.heard, {taken for taken, _ in before})
            if not missing:
                reached = self._ends(head, picks)
                if reached == told.head:
                    return [*before, *picks]
                if len(told.heard) >= _FULL:
                    after = self._after(told, [*before, *picks], reached, copy.deepcopy(used))
                    if after is not None:
                        return after
            if place is not None:
                before.append((place, _expected(self._pending[place], used)))
                head = self._ends(head, before[-1:])
        return None

    def _after(self, told: Told, picks: list[_Pick], head: str | None, used: Used) -> list[_Pick] | None:
        taken = {place for place, _ in picks}
        for place, _ in picks:
            _expected(self._pending[place], used)
        for place, message in self._pending.items():
            if place not in taken and message.sent.event_id < told.event_id:
                picks = [*picks, (place, _expected(message, used))]
                head = self._ends(head, picks[-1:])
                if head == told.head:
                    return picks
        return None

    def _ends(self, head: str | None, picks: Sequence[_Pick]) -> str | None:
        for place, rule in picks:
            self._spend()
            head = fold_message(head, _item(self.messages[place], rule))
        return head

    def _spend(self) -> None:
        self._work -= 1
        if self._work < 0:
            raise _Exhausted

    def _take(self, pick: _Pick, told: Told) -> None:
        """I6 to I8."""
        place, rule = pick
        message = self._pending.pop(place)
        sent = message.sent
        self._head = fold_message(self._head, _item(message, rule))
        self.heads.add(self._head)
        self.handled.append(Handled(message, rule, signed=True))
        limit = told.task if sent.kind == "signal" else told.event_id
        before = max(self._by_name.get((sent.kind, sent.name), 0), 0 if sent.kind == "signal" else self._latest)
        if sent.event_id >= limit or sent.came is None or sent.event_id < before:  # [I8]
            self.wrong("messages-broken", f"{told.what} says that it was handled in another order", message)
        elif sent.event_id < self._latest:
            sentence = "it was handled after later ones: its handler came late, or its event was moved"
            self.wrong("message-unmatched", sentence, message)
        self._latest = max(self._latest, sent.event_id)
        self._by_name[sent.kind, sent.name] = sent.event_id
        if rule not in _verdicts(message):  # [I6]
            if rule is None:
                self.wrong("message-unpermitted", f"the run accepted it. {message.problem}", message)
            else:
                self.wrong("messages-broken", f"the run refused it ({rule}), and nothing is wrong with it", message)
        elif message.admitted is not None and (rule is None or rule in _SPENT):
            spent = _expected(message, self.used)
            if rule is None and spent is not None:  # [I7]
                self.wrong(
                    "message-unpermitted", f"the run accepted it, and its permit was used before [{spent}]", message
                )
            elif rule is not None and spent is None:  # [I6]
                sentence = f"the run refused its permit as used ({rule}), and it was not used before"
                self.wrong("messages-broken", sentence, message)

    def finish(self, seal: Seal | None) -> None:
        """Look at what no statement told of, and at what the seal hands on (I9, I10)."""
        last = self._told
        sound = not self._lost and not any(each.code == "messages-broken" for each in self.findings)
        if seal is not None and seal.outcome == "continued" and sound and self._sure():
            rooms = (MAX_CARRIED, 0)
            if (seal.used, seal.used_until) not in [self.used.carried(seal.iat, room) for room in rooms]:  # [I10]
                self.wrong("messages-broken", "The seal hands on other used permits than the run has used")
        for message in list(self._pending.values()):
            sent = message.sent
            told = last is not None and sent.event_id < (last.task if sent.kind == "signal" else last.event_id)
            if told and not self._lost and sent.came is not None:
                if sent.kind == "update":  # [I9]
                    self.wrong("messages-broken", f"it was accepted, and {_small(last)} has not heard it", message)
                else:
                    sentence = f"{_small(last)} has not heard it: it has no handler, or it was added"
                    self.wrong("message-unmatched", sentence, message)
                continue
            rule = _expected(message, self.used)
            self.handled.append(Handled(message, rule, signed=False))

    def _sure(self) -> bool:
        return not any(message.unknown for message in self.messages)


def _small(told: Told | None) -> str:
    return told.what[:1].lower() + told.what[1:] if told is not None else "nothing signed"


def _item(message: Judged, rule: str | None) -> str:
    sent = message.sent
    return handled_message(sent.kind, sent.name, sent.args, message.token, rule)


def _verdicts(message: Judged) -> tuple[str | None, ...]:
    """The verdicts that a run may rightly have had, as far as they depend on the message alone."""
    problem, admitted = message.problem, message.admitted
    if message.unknown:
        return (None, *_RULES)
    if problem is not None:
        return (problem.rule,)
    if admitted is None:
        return (None,)
    came = message.sent.at if message.sent.came is None else message.sent.came
    ended = ("M17",) if admitted.token.claims.exp - came < _CLOSE else ()
    return (None, *_SPENT, *ended)


def _expected(message: Judged, used: Used) -> str | None:
    """The rule that refuses a message now; its permit is used up."""
    if message.problem is not None:
        return message.problem.rule
    if message.admitted is not None and message.token is not None:
        try:
            used.take(message.token, message.admitted.token.claims.iat)
        except StatementError as error:
            return error.rule
    return None
