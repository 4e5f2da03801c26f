"""The policies of one visitor: a copy in the visitor's own folder, and what they were."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from exequatur.files import write_whole
from exequatur.policy.source import ENTITIES_NAME, SCHEMA_NAMES, BundleSource, SourceFile, read_folder


@dataclass(frozen=True)
class Policies:
    """Texts of a policy folder.

    Args:
        policies: By file name.
        schema: The Cedar schema, if there is one; it is not edited.
        entities: The entities, if there are any; they are not edited.
    """

    policies: Mapping[str, str]
    schema: str | None = None
    entities: str | None = None

    @classmethod
    def read(cls, folder: Path) -> Policies:
        """Read a folder.

        Raises:
            PolicyError: It cannot be read.
        """
        source = read_folder(folder)
        return cls(
            {Path(each.name).name: each.text for each in source.policies},
            None if source.schema is None else source.schema.text,
            None if source.entities is None else source.entities.text,
        )

    def edited(self, texts: Mapping[str, str]) -> Policies:
        """The same with other texts for some of its files."""
        return replace(self, policies={**self.policies, **{name: texts[name] for name in texts}})

    @property
    def digest(self) -> str:
        """Of the bundle that they make.

        Raises:
            PolicyError: The entities are no JSON list, or a text is no Unicode.
        """
        return BundleSource(
            tuple(SourceFile(name, text) for name, text in sorted(self.policies.items())),
            None if self.schema is None else SourceFile(SCHEMA_NAMES[0], self.schema),
            None if self.entities is None else SourceFile(ENTITIES_NAME, self.entities),
        ).digest

    def write(self, folder: Path, before: Policies | None = None) -> None:
        """Write those that are not as they were; a worker that watches the folder puts them in force.

        Args:
            folder: Is there.
            before: What is there now.
        """
        for name, text in self.policies.items():
            if before is None or before.policies.get(name) != text:
                write_whole(folder / name, text.encode())
        if before is None:
            for name, other in ((SCHEMA_NAMES[0], self.schema), (ENTITIES_NAME, self.entities)):
                if other is not None:
                    write_whole(folder / name, other.encode())

    def difference(self, other: Policies) -> str:
        """What another version has changed, as a unified diff; empty where it is the same."""
        lines: list[str] = []
        for name, text in self.policies.items():
            after = other.policies.get(name, "")
            if text != after:
                lines += difflib.unified_diff(
                    text.splitlines(), after.splitlines(), f"{name} (as it was)", f"{name} (yours)", "", "", 2, ""
                )
        return "\n".join(lines)
