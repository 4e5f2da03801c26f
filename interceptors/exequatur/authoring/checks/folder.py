"""A policy folder as it is, with files that cannot be read or that nobody reads."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from exequatur.authoring.checks import schemas
from exequatur.authoring.checks.findings import Finding, is_slip_of, whole_file
from exequatur.authoring.checks.texts import Text
from exequatur.errors import PolicyError
from exequatur.policy.source import ENTITIES_NAME, MAX_BUNDLE_BYTES, SCHEMA_NAMES, BundleSource, SourceFile

#: The user's part of the schema, from which ``policy schema`` generates the whole.
FRAGMENT_NAME = "model.cedarschema"
TESTS_NAME = "tests"
_TESTS = (".yaml", ".yml", ".json")
#: Files of subfolders that are looked for policies; a folder that has more is something else.
_MAX_VISITED = 10_000


@dataclass
class Folder:
    """What a folder holds.

    Args:
        source: What of the bundle can be read; None if there are no policies.
        others: Texts that are no part of the bundle.
        findings: What is wrong with the files.
    """

    source: BundleSource | None = None
    others: list[Text] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def read(path: Path) -> Folder:
    """Read a policy folder file by file.

    Raises:
        PolicyError: It does not exist or cannot be listed.
    """
    try:
        if not path.is_dir():
            problem = "is not a folder" if path.exists() else "does not exist"
            raise PolicyError(f"The policy folder {path} {problem}. Name the folder that holds the *.cedar files.")
        names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
        folder = Folder()
        folder.findings += _ignored(path, names)
    except OSError as error:
        raise PolicyError(
            f"The policy folder {path} cannot be read: {error.strerror}. Check its owner and mode."
        ) from None
    present = [name for name in SCHEMA_NAMES if name in names]
    if len(present) > 1:
        both = f"there is {SCHEMA_NAMES[0]} beside it, and a worker refuses both"
        folder.findings.append(whole_file("schema", str(path / present[1]), both, "remove one of them"))
    cedar = [name for name in names if name.endswith(".cedar")]
    wanted = [*cedar, *present[:1], *(name for name in (ENTITIES_NAME, FRAGMENT_NAME) if name in names)]
    left = MAX_BUNDLE_BYTES
    files: dict[str, SourceFile] = {}
    for name in wanted:
        found = _read(path / name, left)
        if isinstance(found, SourceFile):
            left -= len(found.text.encode())
            files[name] = found
        else:
            folder.findings.append(found)
    if FRAGMENT_NAME in files:
        text = Text(files[FRAGMENT_NAME].name, files[FRAGMENT_NAME].text)
        folder.others.append(text)
        folder.findings += schemas.fragment(text)
        if present and present[0] in files:
            folder.findings += schemas.outdated(text, Text(files[present[0]].name, files[present[0]].text))
    if not cedar:
        empty = "there is no *.cedar file: a worker refuses the folder"
        folder.findings.append(
            whole_file("no-policies", str(path), empty, "write one, for example policies.cedar", severity="error")
        )
    else:
        schema = files.get(present[0]) if present else None
        policies = tuple(files[name] for name in cedar if name in files)
        folder.source = BundleSource(policies, schema, files.get(ENTITIES_NAME))
    return folder


def _read(path: Path, limit: int) -> SourceFile | Finding:
    name = str(path)
    try:
        if not path.is_file():
            # A pipe would block the reader for ever.
            return whole_file("unreadable", name, "this is not a regular file", "replace it by one, or remove it")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        return whole_file("unreadable", name, f"this cannot be read: {error.strerror}", "check its owner and mode")
    if len(data) > limit:
        large = f"with this file the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB"
        return whole_file("unreadable", name, large, "split the bundle, or remove entities")
    try:
        return SourceFile(name, data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        start = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[start : error.start].decode(errors="replace")) + 1
        return Finding(
            "unreadable",
            "error",
            name,
            line,
            column,
            column + 1,
            None,
            "this is not valid UTF-8",
            "save the file as UTF-8",
            binding=True,
        )


def _ignored_tests(path: Path, names: list[str]) -> Iterator[Finding]:
    """Files that somebody may take for tests of the policies."""
    for name in names:
        inner = path / name
        if name.lower() not in (TESTS_NAME, "test") or not inner.is_dir() or inner.is_symlink():
            continue
        files = [each for each in sorted(inner.glob("*"))[:_MAX_VISITED] if not each.name.startswith(".")]
        tests = [each for each in files if each.suffix in _TESTS]
        if name != TESTS_NAME and tests:
            step = f"rename the folder to {TESTS_NAME}"
            yield whole_file("file-ignored", str(inner), "the tests in this folder are not run", step)
        elif name == TESTS_NAME:
            for each in files:
                if each not in tests and any(suffix in each.name.lower() for suffix in _TESTS[:2]):
                    step = "rename it so that it ends in .yaml, or move it away"
                    yield whole_file("file-ignored", str(each), "this test is not run", step)


def _ignored(path: Path, names: list[str]) -> Iterator[Finding]:
    """Files that somebody may take for a part of the bundle."""
    read_names = {*SCHEMA_NAMES, ENTITIES_NAME, FRAGMENT_NAME}
    for name in names:
        lowered = name.lower()
        if name in read_names or name.endswith(".cedar") or not (path / name).is_file():
            continue
        if lowered in read_names:
            yield whole_file("file-ignored", str(path / name), "this file is not read", f"rename it to {lowered}")
        elif lowered.endswith((".cedarschema", ".cedarschema.json")):
            step = f"rename it to {SCHEMA_NAMES[0]}, or to {FRAGMENT_NAME} if it is your part of it"
            yield whole_file("file-ignored", str(path / name), "this schema is not read", step)
        elif ".cedar" in lowered or lowered.endswith(".policy") or is_slip_of(Path(lowered).suffix[1:], "cedar"):
            step = "rename it so that it ends in .cedar, or move it away"
            yield whole_file("file-ignored", str(path / name), "these policies are not read", step)
        elif lowered.endswith(".json") and "entit" in lowered:
            yield whole_file(
                "file-ignored", str(path / name), "these entities are not read", "merge it into entities.json"
            )
        elif lowered.startswith("entit"):
            step = f"write them as JSON into {ENTITIES_NAME}"
            yield whole_file("file-ignored", str(path / name), "these entities are not read", step)
    yield from _ignored_tests(path, names)
    visited = 0
    for name in names:
        inner = path / name
        if name == TESTS_NAME or not inner.is_dir() or inner.is_symlink():
            continue
        if any((inner / schema).exists() for schema in SCHEMA_NAMES):
            continue  # A bundle of its own.
        for file in sorted(inner.rglob("*.cedar")):
            visited += 1
            if visited > _MAX_VISITED:
                return
            yield whole_file(
                "file-ignored", str(file), "policies in a subfolder are not read", f"move the file to {path}"
            )
