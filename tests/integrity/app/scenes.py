"""What may happen to a process, and what its guard finds: ``python -S scenes.py MANIFEST KEYS`` tells as JSON.

Each scene does something, lets the guard look, and puts things right again.
"""

import importlib
import importlib.util
import json
import marshal
import os
import shutil
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from shop import prices

import exequatur.plugin  # noqa: F401 (what a worker has loaded)
from exequatur.gate import attempt
from exequatur.gate.gate import Gate
from exequatur.integrity.files import Reader
from exequatur.integrity.guard import Guard, Told
from exequatur.settings import Settings

HERE = Path(__file__).resolve().parent
PRICES = HERE / "shop" / "prices.py"
OUTSIDE = HERE.parent / "outside"
TINY = HERE.parent / "tiny" / "tiny.py"
CONFIG = HERE.parent / "shop.toml"
found: dict[str, Any] = {}


@contextmanager
def written(path: Path, text: str) -> Iterator[None]:
    before = path.read_bytes() if path.exists() else None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    yield
    path.unlink()
    if before is not None:
        path.write_bytes(before)


@contextmanager
def written_in(names: dict[str, Any], name: str, value: Any) -> Iterator[None]:
    before = names[name]
    names[name] = value
    yield
    names[name] = before


@contextmanager
def exchanged(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name, None)
    had = name in vars(target)
    setattr(target, name, value)
    yield
    if had:
        setattr(target, name, before)
    else:
        delattr(target, name)


def compiled(source: Path, text: str) -> Path:
    """Plant what Python loads instead of a source file."""
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    state = source.stat()
    header = importlib.util.MAGIC_NUMBER + bytes(4)
    header += int(state.st_mtime).to_bytes(4, "little") + state.st_size.to_bytes(4, "little")
    cached.write_bytes(header + marshal.dumps(compile(text, str(source), "exec")))
    return cached


def main(manifest: str, keys: str) -> None:
    told: list[str] = []

    def tell(what: Told) -> None:
        told.append(what.state)
        found["record"] = json.loads(what.record(None))

    settings = Settings(integrity_manifest=manifest, integrity_keys=keys, integrity_interval="1m")
    guard = Guard.open(settings, tell)
    assert guard is not None
    guard._share = 1.0
    guard.begin()

    def quick() -> list[str]:
        return guard._quick(Reader())

    def whole() -> list[str]:
        return guard._whole(Reader())

    def scene(name: str, look: Callable[[], list[str]] = quick) -> None:
        found[name] = look()

    scene("nothing")
    with written(PRICES, PRICES.read_text().replace("500", "5000")):
        scene("changed")
    scene("put back")
    PRICES.touch()
    scene("touched")
    before, times = PRICES.read_text(), PRICES.stat()
    PRICES.write_text(before.replace("500", "900"))
    os.utime(PRICES, ns=(times.st_atime_ns, times.st_mtime_ns))
    scene("changed as if it were not")
    PRICES.write_text(before)
    aside = PRICES.rename(PRICES.with_suffix(".aside"))
    scene("missing")
    aside.rename(PRICES)
    with written(HERE / "shop" / "extra.py", ""):
        scene("added file")
    scene("removed again")
    with written(HERE / "more" / "extra.py", ""):
        scene("added package")
    (HERE / "more").rmdir()
    (HERE / "more" / "inside").mkdir(parents=True)
    scene("added folder")
    with written(HERE / "more" / "inside" / "extra.py", ""):
        scene("added file in it")
    shutil.rmtree(HERE / "more")
    scene("removed folder")
    with written(CONFIG, "limit = 7\n"):
        scene("configuration")
    os.environ["SHOP_MODE"] = "other"
    scene("environment")
    os.environ["SHOP_MODE"] = "usual"

    # Loaded later.
    importlib.import_module("shop.later")
    scene("loaded")
    importlib.import_module("linked.handler")
    scene("loaded through a link")
    fleeting = HERE / "shop" / "fleeting.py"
    with written(fleeting, "VALUE = 'another'"):
        found["what ran meanwhile"] = importlib.import_module("shop.fleeting").VALUE
    scene("loaded and put back")
    source = HERE / "shop" / "hidden.py"
    cached = compiled(source, "VALUE = 'another'")
    found["what ran"] = importlib.import_module("shop.hidden").VALUE
    scene("compiled file")
    cached.unlink()
    sys.path.append(str(OUTSIDE))
    with written(OUTSIDE / "stranger.py", ""):
        scene("path")
        importlib.import_module("stranger")
        scene("stranger")
    sys.path.remove(str(OUTSIDE))
    del sys.modules["stranger"]
    finder = types.new_class("Finder", exec_body=lambda names: names.update(__module__="nowhere"))()
    sys.meta_path.insert(0, finder)
    scene("finder")
    sys.meta_path.remove(finder)

    # In memory.
    with exchanged(attempt, "decide", lambda *_: None):
        scene("function")
    with exchanged(Gate, "unavailable", lambda self: None):
        scene("method")
    with exchanged(Gate, "__getattribute__", object.__getattribute__):
        scene("added method")
    code = Gate.unavailable.__code__
    Gate.unavailable.__code__ = (lambda self: None).__code__
    scene("code")
    Gate.unavailable.__code__ = code
    with written_in(sys.modules, "exequatur.gate.attempt", types.ModuleType("exequatur.gate.attempt")):
        scene("module")
    half = types.ModuleType("json.half")
    half.__spec__ = importlib.util.spec_from_loader("json.half", None)
    vars(half.__spec__)["_initializing"] = True
    sys.modules["json.half"] = half
    vars(half)["decide"] = len
    scene("module that is being loaded")
    vars(half)["decide"] = print
    vars(half.__spec__)["_initializing"] = False
    scene("module that was being loaded")
    vars(half)["decide"] = len
    scene("module that was loaded")
    del sys.modules["json.half"]
    vars(half)["decide"] = print
    with guard.probing(lambda: ["the probe says so"]):
        scene("probe")
    scene("nothing again")

    # Only when everything is read again.
    anchors = json.loads(Path(keys).read_text())
    anchors["keys"][0]["exp"] = anchors["keys"][0]["nbf"] + 1
    with written(TINY, "VALUE = 2\n"), written(Path(keys), json.dumps(anchors)):
        scene("unread")
        with written(TINY.parent / "beside.py", ""):
            scene("read again", whole)
    scene("whole", whole)
    aside = TINY.rename(TINY.with_suffix(".aside"))
    os.mkfifo(TINY)
    guard.look(full=True)
    found["unread when everything was to be read"] = guard.unavailable()
    guard.look()
    found["and then only what is loaded"] = guard.unavailable()
    TINY.unlink()
    aside.rename(TINY)
    guard.look(full=True)
    found["everything was read"] = guard.unavailable()
    found["told of everything"] = told[-2:]
    del told[-2:]
    source = HERE / "shop" / "later.py"
    cached = compiled(source, source.read_text())
    importlib.reload(sys.modules["shop.later"])
    scene("compiled")
    scene("compiled and whole", whole)
    cached = compiled(source, "VALUE = 'another'")
    scene("compiled file after the whole")
    cached.unlink()

    # What follows from it.
    aside = PRICES.rename(PRICES.with_suffix(".aside"))
    os.mkfifo(PRICES)
    guard.look()
    found["unreadable"] = [guard.unavailable(), guard.violation, guard.lost()]
    PRICES.unlink()
    aside.rename(PRICES)
    guard.look()
    found["readable"] = guard.unavailable()
    guard._looked -= 3600
    found["not looked"] = [guard.unavailable(), guard.lost()]
    guard.look()
    found["looked"] = guard.unavailable()
    with written(PRICES, "LIMIT = 1\n"):
        guard.look()
    guard.look()
    found["sticky"] = guard.violation
    found["told"] = told
    guard.end()

    # While everything is read again, for long.
    guard.violation, guard._share = None, 0.05
    guard._settings = settings.model_copy(update={"integrity_interval": timedelta(milliseconds=50)})
    guard.begin()
    reading = threading.Thread(target=guard.look, kwargs={"full": True})
    reading.start()
    time.sleep(0.3)
    with written(PRICES, "LIMIT = 1\n"):
        for _ in range(1500):
            if guard.violation:
                break
            time.sleep(0.05)
    found["meanwhile"] = guard.violation
    guard.end()
    reading.join()

    # A name that is no text.
    guard.violation, guard._share = None, 1.0
    guard.begin()
    strange = Path(os.fsdecode(os.fsencode(HERE) + b"/\xff\n\x1b.py"))
    with written(strange, ""):
        guard.look()
    found["strange"] = [guard.violation, found.pop("record")["differences"]]
    guard.end()
    found["limit"] = prices.LIMIT
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
