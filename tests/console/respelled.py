"""JSON written by hand: values in other spellings, values that parsers disagree about, and what is almost JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from exequatur.lineage.link import genesis_of
from exequatur.lineage.record import fold, head_text, record_bytes
from exequatur.statements.encoding import from_base64url
from tests.console.proofs import Case, Json, Made, at, places, replaced, written
from tests.lineage.chained import LOG
from tests.simulator import claims_of, forge, header_of


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in a text as they are."""

    text: bytes


def spelled(value: Any) -> bytes:
    """A value as JSON, with the bytes of each :class:`Raw` in it."""
    match value:
        case Raw():
            return value.text
        case dict():
            return b"{%b}" % b",".join(b"%b:%b" % (spelled(name), spelled(each)) for name, each in value.items())
        case list():
            return b"[%b]" % b",".join(map(spelled, value))
    try:
        return written(value)
    except UnicodeEncodeError:
        return json.dumps(value).encode()


NUMBERS = (
    *("-0", "-0.0", "0.0", "0e0", "-0e0", "0e400", "1.0", "1e0", "1E+0", "10e-1", "1e5", "-1", "2", "1.5"),
    *("1e400", "-1e400", "1e-400", "5e-324", "2.4703282292062327e-324", "2.2250738585072011e-308"),
    *("1.7976931348623157e308", "1.7976931348623159e308", "0.1", "0.30000000000000004", "1" + "0" * 400),
    *("9007199254740991", "9007199254740992", "9007199254740993", "9007199254740993.0", "9007199254740994"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616"),
    *("9223372036854775809", "36893488147419107329", "147573952589676428289", "1" * 310),
    *("1" * 4300, "1" * 4301, "-" + "1" * 4300, "0." + "3" * 5000, "1e" + "0" * 5000 + "1"),
    *(
        "01",
        "-01",
        "+1",
        ".5",
        "1.",
        "1.e5",
        "1e",
        "1e+",
        "0x10",
        "1_000",
        "\u0661",
        "NaN",
        "Infinity",
        "-Infinity",
        "--1",
    ),
)
TEXTS = (
    *('""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', '"\\uD83D\\uDE00"', '"\\ud83dx\\ude00"'),
    *('"é"', '"e\u0301"', '"\u212a"', '"\u017f"', '"\u0130"', '"\u2028"', '"\ufeff"', '"\\/"', '"\\x41"', '"\\\'"'),
    *('"\\u00\'"', '"\\u+041"', '"\\u 041"', '"\\U0041"', '"\\a"', '"\\v"', '"\\0"', '"a\tb"', '"a\nb"', '"a\x7fb"'),
    *('"__proto__"', '"constructor"', '"\u0661"', "'a'", '"a', '"\\"', "`a`", '"' + "x" * 5000 + '"'),
)
STRUCTURES = (
    *("{}", "[]", "[[]]", "[{}]", "null", "true", "false", "True", "None", "undefined", "nul", "nulll", "truE", ""),
    *('{"__proto__":null}', '{"__proto__":{"x":1}}', '{"constructor":{"prototype":{}}}', '{"toString":1}'),
    *('{"hasOwnProperty":0}', '{"length":0}', '{"then":1}', '{"toJSON":1}', '{"":""}', '{"a":1,"\\u0061":2}'),
    *(
        '{"__proto__":1,"__proto__":2}',
        "[,]",
        "[1,]",
        "{,}",
        '{"a":1,}',
        "{a:1}",
        "[1 2]",
        '{"a" 1}',
        "[//\n]",
        "[/**/]",
    ),
    *("[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 10_000),
)
BYTES = (
    b'"\xff"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"\xf4\x90\x80\x80"',
    b'"\xe2\x82"',
    b'"\xf0\x9f\x98\x80"',
    b"\xef\xbb\xbf1",
)
NASTY = (*(each.encode() for each in (*NUMBERS, *TEXTS, *STRUCTURES)), *BYTES)
SPACES = (
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\f",
    b"\v",
    b"\x00",
    b"\x85",
    "\u00a0".encode(),
    "\u2028".encode(),
    b"\xef\xbb\xbf",
)
NAMES = (
    b'"__proto__"',
    b'"constructor"',
    b'"toString"',
    b'"more"',
    b'""',
    b'"version "',
    b'"Version"',
    b'"\\ud800"',
    b"version",
)


def respelled(value: Any, chance: random.Random) -> Raw:
    """A value written otherwise: sometimes the same value, sometimes almost, sometimes no value at all."""
    plain = spelled(value)
    how = chance.randrange(6)
    if how == 0:
        return Raw(chance.choice(NASTY))
    if how == 1:
        return Raw(chance.choice(SPACES) + plain + chance.choice(SPACES[:5]))
    if how == 2 and chance.random() < 0.5:  # levels around the bound, wherever it stands
        levels = chance.randrange(190, 204)
        return Raw(b"[" * levels + plain + b"]" * levels)
    match value:
        case bool() | None:
            return Raw(chance.choice((b"true", b"false", b"null", b"1", b"0", b"1.0", b'"true"')))
        case int() | float():
            more = (
                b"%b.0",
                b"%be0",
                b"%bE-0",
                b"%b.00000000000000000000001",
                b"-%b",
                b"0%b",
                b"%b0e-1",
                b"%b.",
                b'"%b"',
            )
            return Raw(chance.choice(more) % plain)
        case str():
            return Raw(_text(value, chance))
        case dict():
            return Raw(_object(value, chance))
        case list():
            items = [spelled(each) for each in value]
            chance.shuffle(items)
            return Raw(
                chance.choice((b"[%b,]", b"[,%b]", b"[%b]", b"[ %b\n]", b"[%b", b"[null,%b]")) % b",".join(items)
            )
    return Raw(plain)


def _text(text: str, chance: random.Random) -> bytes:
    units = text.encode("utf-16-be", "surrogatepass")
    escapes = [f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)]
    match chance.randrange(8):
        case 0:
            return '"{}"'.format("".join(escapes)).encode()
        case 1:
            return '"{}"'.format("".join(escapes).upper().replace("\\U", "\\u")).encode()
        case 2:
            return spelled(text).replace(b"/", b"\\/")
        case 3:
            return '"{}"'.format("".join(escapes[:-1])).encode()
        case 4:
            return spelled(text.swapcase())
        case 5:
            return spelled(text + chance.choice(("\n", "\r", "\0", "\u2028", "=", "\U0001f600", "\u0301", " ")))
        case 6:
            return spelled(text.replace("a", "\u0430").replace("-", "\u2010").replace("e", "\u0435"))
        case _:
            return spelled(chance.choice(("\ufeff", " ", "\n", "A", ".", "~")) + text)


def _object(value: Json, chance: random.Random) -> bytes:
    members = [(spelled(name), spelled(each)) for name, each in value.items()]
    name, each = chance.choice(members) if members else (b'"x"', b"1")
    match chance.randrange(7):
        case 0:
            chance.shuffle(members)
        case 1:  # twice, the same or another value, in front or behind
            members.insert(chance.randrange(len(members) + 1), (name, chance.choice((each, chance.choice(NASTY)))))
        case 2:  # twice, once in other letters
            members.append((b'"\\u%04x%b' % (name[1], name[2:]), each))
        case 3:
            members = [(chance.choice(NAMES) if one == name else one, other) for one, other in members]
        case 4:
            members.append((chance.choice(NAMES), chance.choice(NASTY)))
        case 5:
            space = chance.choice(SPACES)
            return b"{%b}" % b",".join(space + one + space + b":" + space + other + space for one, other in members)
        case _:
            return chance.choice((b"{%b,}", b"{%b", b"{%b}}", b"{%b}]")) % b",".join(
                b"%b:%b" % each for each in members
            )
    return b"{%b}" % b",".join(b"%b:%b" % each for each in members)


def bent_somewhere(value: Any, chance: random.Random) -> tuple[str, Any]:
    """A value with one place in it respelled, now and then two."""
    where = []
    for _ in range(1 + (chance.random() < 0.2)):
        path = chance.choice(list(places(value)))
        if isinstance(at(value, path), Raw):
            continue
        value = replaced(value, path, respelled(at(value, path), chance))
        where.append(".".join(map(str, path)) or "the whole")
    return " and ".join(where), value


def respelled_cases(count: int, seed: int = 7) -> Iterator[Case]:
    """Documents, trust files, claims and headers with something in them respelled.

    Args:
        count: How many; those of a smaller number are the beginning of those of a larger one, but for the keys.
        seed: Of the random choices.
    """
    chance = random.Random(seed)
    both = [(each, written(each.document()), written(each.trust())) for each in (Made(), Made(delegated=True))]
    for number in range(count):
        made, honest, trust = chance.choice(both)
        layer = chance.choices(("document", "trust", "claims", "header", "record", "note"), (8, 4, 8, 1, 2, 2))[0]
        base = made.document()
        match layer:
            case "document":
                where, new = bent_somewhere(base, chance)
                honest = spelled(new)
            case "trust":
                where, new = bent_somewhere(made.trust(), chance)
                trust = spelled(new)
            case "claims" | "header":
                at_token = chance.randrange(len(made.statements))
                token = made.statements[at_token]
                parts = [header_of(token), claims_of(token)]
                which = layer == "claims"
                where, new = bent_somewhere(parts[which], chance)
                parts[which] = spelled(new)
                where = f"{at_token} {where}"
                forged = forge(*parts, made.key_of(token))
                honest = spelled(replaced(base | {"logs": []}, ("proofs", "statements", at_token), forged))
            case "record":
                where = chance.choice([each for each in NUMBERS if each[-1].isdigit()])
                honest = spelled(base | {"logs": [_log_at(where)]})
            case _:
                index = chance.randrange(len(base["checkpoints"]))
                note: str = base["checkpoints"][index]
                place, more = chance.randrange(len(note)), chance.choice(NOTED)
                cut = chance.randrange(3)
                where = f"{index} at {place}: {more!r} for {cut}"
                honest = spelled(replaced(base, ("checkpoints", index), note[:place] + more + note[place + cut :]))
        yield f"{number}: {layer} {where}", honest, trust


NOTED = (
    *"\n\r\t \0+=—-\u2013AZ0",
    "\n\n",
    "\x1f",
    "\x7f",
    "\x85",
    "\u00a0",
    "\u2028",
    "\ufeff",
    "\u3000",
    "\u200b",
    "\U0001f600",
    "",
)


def _log_at(time: str) -> Json:
    """A log whose one record was written at a time that is spelled like this, with the head that follows from it."""
    try:
        hashed = record_bytes("x", float(json.loads(time)), None, None, None, b"")
    except (ValueError, OverflowError):
        hashed = b""
    previous = genesis_of(LOG)
    head = head_text(fold(from_base64url(previous), hashed))
    one = {"index": 0, "at": Raw(time.encode()), "kind": "x", "body": "", "previous": previous, "head": head}
    return {"log_id": LOG, "records": [one]}
