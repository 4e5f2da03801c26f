"""A folder of policies that a test writes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exequatur.errors import ConfigurationError
from exequatur.identity.principal import Principal


class PolicyFiles:
    """A policy folder under construction.

    Args:
        path: The folder; made when it is missing.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.mkdir(parents=True, exist_ok=True)

    def __fspath__(self) -> str:
        return str(self.path)

    def write(self, text: str, name: str = "policies.cedar") -> Path:
        """Write or replace a policy file.

        Args:
            text: Cedar policies.
            name: Of the file, ending in ``.cedar``.

        Returns:
            The file.

        Raises:
            ConfigurationError: The name is not that of a policy file in this folder.
        """
        if not name.endswith(".cedar") or Path(name).name != name:
            raise ConfigurationError(f"{name!r} is no policy file of this folder; name it like refunds.cedar")
        return self._write(name, text)

    def schema(self, text: str) -> Path:
        """Write or replace the schema, in Cedar syntax."""
        return self._write("schema.cedarschema", text)

    def entities(self, *entities: Mapping[str, Any] | str, parents: Sequence[str] = ()) -> Path:
        """Write or replace ``entities.json``.

        Args:
            entities: Cedar JSON entities, or ``Type::"id"`` for one without attributes.
            parents: ``Type::"id"`` of the parents of those that are given as text.

        Raises:
            ConfigurationError: An entity is not written as ``Type::"id"``.
        """
        above = [_uid(parent) for parent in parents]
        written = [
            {"uid": _uid(each), "attrs": {}, "parents": above} if isinstance(each, str) else dict(each)
            for each in entities
        ]
        return self._write("entities.json", json.dumps(written, indent=2))

    def copy(self, folder: str | Path) -> None:
        """Copy the files of another policy folder into this one, so that a test may change them.

        Raises:
            ConfigurationError: There is no such folder.
        """
        source = Path(folder)
        if not source.is_dir():
            raise ConfigurationError(f"{source} is not a folder; name the one with your *.cedar files")
        for file in sorted(source.iterdir()):
            if file.is_file():
                shutil.copyfile(file, self.path / file.name)

    def _write(self, name: str, text: str) -> Path:
        file = self.path / name
        file.write_text(text, encoding="utf-8")
        return file


def _uid(text: str) -> dict[str, str]:
    try:
        return Principal.parse(text).uid
    except ValueError as err:
        raise ConfigurationError(str(err)) from err
