"""The text of a policy bundle: read from a folder, located for error messages, and named by its digest."""

import base64
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from exequatur.errors import PolicyError

#: Far above any policy set that people maintain, and a bound on what one edit can make a worker read and parse.
MAX_BUNDLE_BYTES = 16 * 1024 * 1024

SCHEMA_NAMES = ("schema.cedarschema", "schema.cedarschema.json")
ENTITIES_NAME = "entities.json"

ARCHIVE_FORMAT = "exequatur policy bundle v1"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One text and the name under which errors speak of it."""

    name: str
    text: str


@dataclass(frozen=True)
class BundleSource:
    """The texts that make up a bundle; policies are in the order of their file names."""

    policies: tuple[SourceFile, ...]
    schema: SourceFile | None = None
    entities: SourceFile | None = None

    @cached_property
    def policy_text(self) -> str:
        """All policies as one text, in file order."""
        return "\n".join(file.text for file in self.policies)

    @cached_property
    def entity_documents(self) -> list[Any]:
        """The entities as JSON values.

        Raises:
            PolicyError: The file is no JSON list.
        """
        if self.entities is None:
            return []
        try:
            documents = json.loads(self.entities.text)
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"{self.entities.name} is not JSON: {error}. Correct it and save it again.") from None
        if not isinstance(documents, list):
            raise PolicyError(f"{self.entities.name} must be a JSON list of Cedar entities.")
        return documents

    @cached_property
    def archive(self) -> bytes:
        """What the evidence keeps of a bundle: JSON with sorted members and no white space.

        File names are not in it, so that renaming a file makes no other bundle.

        Raises:
            PolicyError: The entities are no JSON list, or a text is not representable in UTF-8.
        """
        content = {
            "format": ARCHIVE_FORMAT,
            "schema": None if self.schema is None else self.schema.text,
            "policies": self.policy_text,
            "entities": self.entity_documents,
        }
        try:
            return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise PolicyError(f"The policies are not representable in UTF-8: {error.reason}.") from None

    @cached_property
    def digest(self) -> str:
        """Base64url SHA-256 of the archive.

        Raises:
            PolicyError: As for :attr:`archive`.
        """
        return base64.urlsafe_b64encode(hashlib.sha256(self.archive).digest()).rstrip(b"=").decode()

    @classmethod
    def from_archive(cls, data: bytes) -> "BundleSource":
        """Read back what :attr:`archive` gave.

        Raises:
            PolicyError: It is not an archive, or too large.
        """
        if len(data) > MAX_BUNDLE_BYTES:
            raise PolicyError(f"The archived bundle has {len(data)} bytes, more than {MAX_BUNDLE_BYTES}.")
        try:
            content = json.loads(data)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict) or content.get("format") != ARCHIVE_FORMAT:
            raise PolicyError("This is not an archived policy bundle of a known version.")
        schema, policies, entities = content.get("schema"), content.get("policies"), content.get("entities")
        if len(content) != 4 or not isinstance(schema, str | None) or not isinstance(policies, str):
            raise PolicyError("The archived policy bundle is malformed.")
        return cls(
            (SourceFile("policies", policies),),
            None if schema is None else SourceFile("schema", schema),
            SourceFile("entities", json.dumps(entities)) if entities else None,
        )


def read_folder(folder: Path) -> BundleSource:
    """Read the files of a policy folder: ``*.cedar`` sorted by name, an optional schema, optional entities.

    Args:
        folder: The folder; subfolders and hidden files are not read.

    Returns:
        The texts.

    Raises:
        PolicyError: The folder or a file is missing, unreadable, not UTF-8, of the wrong kind or too large.
    """
    try:
        if not folder.is_dir():
            problem = "is not a folder" if folder.exists() else "does not exist"
            raise PolicyError(f"The policy folder {folder} {problem}. Create it with at least one *.cedar file.")
        names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise PolicyError(
            f"The policy folder {folder} cannot be read: {error.strerror}. Check its owner and mode."
        ) from None
    cedar = [name for name in names if name.endswith(".cedar")]
    if not cedar:
        raise PolicyError(f"The policy folder {folder} has no *.cedar file. Write one, for example policies.cedar.")
    schemas = [name for name in SCHEMA_NAMES if name in names]
    if len(schemas) > 1:
        raise PolicyError(f"The policy folder {folder} has both {schemas[0]} and {schemas[1]}. Remove one of them.")
    left = MAX_BUNDLE_BYTES
    files: dict[str, SourceFile] = {}
    for name in [*cedar, *schemas, *([ENTITIES_NAME] if ENTITIES_NAME in names else [])]:
        files[name] = read_text(folder / name, left)
        left -= len(files[name].text.encode())
    return BundleSource(
        tuple(files[name] for name in cedar), files[schemas[0]] if schemas else None, files.get(ENTITIES_NAME)
    )


def check_size(source: BundleSource) -> None:
    """Refuse a bundle above :data:`MAX_BUNDLE_BYTES`.

    Raises:
        PolicyError: It is larger.
    """
    files = [*source.policies, *(file for file in (source.schema, source.entities) if file is not None)]
    try:
        size = sum(len(file.text.encode()) for file in files)
        if size <= MAX_BUNDLE_BYTES:
            size = len(source.archive)  # escaped, so it may be longer
    except UnicodeEncodeError:
        raise PolicyError("The policies hold a lone surrogate, which is not valid Unicode. Remove it.") from None
    if size > MAX_BUNDLE_BYTES:
        raise PolicyError(_too_large(files[0].name))


def read_text(path: Path, limit: int = MAX_BUNDLE_BYTES) -> SourceFile:
    """Read a file of a policy folder.

    Args:
        path: The file.
        limit: How many bytes it may have.

    Raises:
        PolicyError: It is missing, unreadable, no regular file, not UTF-8 or too large.
    """
    try:
        if not path.is_file():
            # A pipe would block the reader for ever.
            raise PolicyError(f"{path} is not a regular file. Replace it by one or remove it.")
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise PolicyError(f"{path} cannot be read: {error.strerror}. Check its owner and mode.") from None
    if len(data) > limit:
        raise PolicyError(_too_large(str(path)))
    try:
        return SourceFile(str(path), data.decode())
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise PolicyError(f"{path}:{line}: not valid UTF-8. Save the file as UTF-8.") from None


def _too_large(name: str) -> str:
    return f"The policy bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB at {name}. Split it or remove entities."
