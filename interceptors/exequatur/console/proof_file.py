"""The proof viewer as one HTML file, to save and to mail: it verifies offline, opened from a disk.

Rules, numbered as the code marks them:

F1  Nothing runs in it but the script that was put in here, by its hash, and it reaches no network.
F2  The evidence in it is data: JSON in an element that no browser executes, in which no character begins a tag.
F3  It brings no trust. The reader chooses the keys.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import PurePosixPath

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from exequatur.errors import EvidenceError
from exequatur.lineage.document import MAX_BYTES
from exequatur.lineage.note import to_base64
from exequatur.statements.encoding import compact_json

_IMPORT = re.compile(r"^import (\{[^}]*\}) from '(\./[a-z]+\.js)'\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_NO_TAG = {ord(each): f"\\u{ord(each):04x}" for each in "<>&\u2028\u2029"}
"""Characters that JSON can write as escapes, so that none of them means anything to HTML."""


def proof_file(name: str = "", document: bytes | None = None) -> str:
    """The viewer as an HTML document.

    Args:
        name: What the evidence is called.
        document: An evidence document to put in; nobody has verified it.

    Raises:
        EvidenceError: The document is larger than any that is read, or no text.
    """
    if document is not None and len(document) > MAX_BYTES:
        raise EvidenceError(f"the evidence document has more than {MAX_BYTES} bytes; hand it over beside the viewer")
    try:
        text = None if document is None else document.decode()
    except UnicodeDecodeError:
        raise EvidenceError("the evidence document is no UTF-8 text, so it is none") from None
    shown = name.encode(errors="backslashreplace").decode()  # a file's name may be no UTF-8
    script, style = _script("standalone.js"), _style()
    policy = "; ".join(  # [F1]
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "worker-src blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    return (
        _templates()
        .get_template("proof_file.html.jinja")
        .render(
            policy=policy,
            style=_whole(style),
            script=_whole(script),
            verifier=_whole(_script("worker.js")),
            evidence=Markup(compact_json({"name": shown, "document": text}).decode().translate(_NO_TAG)),  # noqa: S704 [F2]
            held=text is not None,
            version=version("exequatur"),
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("exequatur.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _whole(text: str) -> Markup:
    """A text of this package as it is, in an element that ends with the first tag of its kind."""
    if "</" in text or "<!--" in text:
        raise ValueError("a script or style of the viewer would end its element")
    return Markup(text)  # noqa: S704


def _hash(text: str) -> str:
    return f"sha256-{to_base64(hashlib.sha256(text.encode()).digest())}"


@cache
def _style() -> str:
    return _static("console.css") + _static("proof.css")


@cache
def _script(first: str) -> str:
    """A module with all that it imports as one script: each module a function, so that its names stay its own."""
    done: dict[str, str] = {}

    def take(name: str) -> None:
        source = _static(f"proof/{name}")
        for found in _IMPORT.finditer(source):
            needed = PurePosixPath(found[2]).name
            if needed not in done:
                take(needed)
        source = _IMPORT.sub(lambda found: f"const {found[1]} = modules['{PurePosixPath(found[2]).name}']\n", source)
        names = ", ".join(found[2] for found in _EXPORT.finditer(source))
        body = _EXPORT.sub(lambda found: found[1], source)
        done[name] = f"modules['{name}'] = (() => {{\n{body}\nreturn {{ {names} }}\n}})()\n"

    take(first)
    return "'use strict'\nconst modules = {}\n" + "".join(done.values())


@cache
def _static(name: str) -> str:
    return files("exequatur.console").joinpath("static", name).read_text("utf-8")
