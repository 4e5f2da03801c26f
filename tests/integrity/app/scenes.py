"""What may happen to a process, and what its guard finds: ``python -S scenes.py MANIFEST KEYS`` tells as JSON.

Each scene does something, lets the guard look, and puts things right again.
"""

import importlib
import importlib.util
import json
import marshal
import os
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
def exchanged(target: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(target, name, None)
    had = name in vars(target)
    setattr(target, name, value)
    yield
    if had:
        setattr(target, name, before)
    else:
        delattr(target, name)


def main(manifest: str, keys: str) -> None:
    told: list[str] = []

    def tell(what: Told) -> None:
        told.append(what.state)

    settings = Settings(integrity_manifest=manifest, integrity_keys=keys, integrity_interval="1m")

    def guard_here() -> Guard:
        guard = Guard.open(settings, tell)
        assert guard is not None
        guard.begin()
        return guard

    guard = guard_here()

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
    aside = PRICES.rename(PRICES.with_suffix(".aside"))
    scene("missing")
    aside.rename(PRICES)
    with written(HERE / "shop" / "extra.py", ""):
        scene("added file")
    scene("removed again")
    with written(HERE / "more" / "extra.py", ""):
        scene("added package")
    (HERE / "more").rmdir()
    with written(CONFIG, "limit = 7\n"):
        scene("configuration")
    os.environ["SHOP_MODE"] = "other"
    scene("environment")
    os.environ["SHOP_MODE"] = "usual"

    # Loaded later.
    importlib.import_module("shop.later")
    scene("loaded")
    source = HERE / "shop" / "hidden.py"
    cached = Path(importlib.util.cache_from_source(str(source)))
    cached.parent.mkdir(exist_ok=True)
    state = source.stat()
    header = importlib.util.MAGIC_NUMBER + bytes(4)
    header += int(state.st_mtime).to_bytes(4, "little") + state.st_size.to_bytes(4, "little")
    cached.write_bytes(header + marshal.dumps(compile("VALUE = 'another'", str(source), "exec")))
    found["what ran"] = importlib.import_module("shop.hidden").VALUE
    scene("compiled file")
    cached.unlink()
    sys.path.append(str(OUTSIDE))
    with written(OUTSIDE / "stranger.py", ""):
        scene("path")
        importlib.import_module("stranger")
        scene("stranger")
    sys.path.remove(str(OUTSIDE))
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
    found["limit"] = prices.LIMIT
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
