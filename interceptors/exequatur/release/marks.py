"""The newest release that was adopted on each channel, kept where a restart finds it.

Rules, numbered as the code marks them:

J21  What is on disk is compared with and raised under a lock, so that no process takes another one back.
J22  A file that cannot be read or is malformed is not taken for "nothing was adopted yet".
J23  A release counts as adopted only when that is on disk; otherwise it is not put in force.
J24  Within a process a mark never falls, even if the file is lost.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from exequatur.errors import PolicyError
from exequatur.files import locked, write_whole
from exequatur.policy.offer import Channel
from exequatur.release.verify import Mark, check_order
from exequatur.statements.encoding import compact_json
from exequatur.statements.models import MAX_SEQUENCE, Digest, Part, Release

_MAX_BYTES = 1024 * 1024


class _Kept(Part):
    sequence: Annotated[int, Field(ge=1, le=MAX_SEQUENCE)]
    bundle: Digest


_Document = dict[str, dict[Channel, _Kept]]
_DOCUMENT = TypeAdapter(_Document)


class Marks:
    """The marks of a state folder.

    Args:
        path: The file, for its owner only; whoever can write it can put older releases back.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: _Document = {}

    def get(self, name: str, channel: Channel) -> Mark | None:
        """The newest release of a bundle that was adopted.

        Raises:
            PolicyError: J22.
        """
        return _of(self._read(), name, channel)

    def raise_to(self, release: Release, channel: Channel) -> None:
        """Remember that a release is adopted.

        Raises:
            PolicyError: It would take the channel back (J6), or cannot be remembered.
        """
        try:
            with locked(self._path.parent):  # [J21]
                document = self._read()
                check_order(release, _of(document, release.name, channel), release.name)
                kept = _Kept(sequence=release.sequence, bundle=release.bundle)
                if document.get(release.name, {}).get(channel) != kept or not self._path.exists():
                    document.setdefault(release.name, {})[channel] = kept
                    write_whole(self._path, compact_json(_DOCUMENT.dump_python(document)))  # [J23]
                self._known = document
        except OSError as error:
            raise PolicyError(
                f"Release {release.sequence} of {release.name} cannot be remembered in {self._path}: {error.strerror}. "
                "Make the state folder writable for this user."
            ) from None

    def _read(self) -> _Document:
        try:
            with self._path.open("rb") as stream:
                data = stream.read(_MAX_BYTES + 1)
            document = _DOCUMENT.validate_json(data[:_MAX_BYTES])
        except FileNotFoundError:
            document = {}
        except OSError as error:
            raise PolicyError(f"{self._path} cannot be read: {error.strerror}. Check its owner and mode.") from None
        except (ValidationError, ValueError):  # [J22]
            raise PolicyError(
                f"{self._path}, which says what was released before, is damaged. Restore it; or, if you know that the "
                "release to come is the newest one, delete it."
            ) from None
        for name, channels in self._known.items():  # [J24]
            for channel, kept in channels.items():
                found = document.get(name, {}).get(channel)
                if found is None or found.sequence < kept.sequence:
                    document.setdefault(name, {})[channel] = kept
        return document


def _of(document: _Document, name: str, channel: Channel) -> Mark | None:
    kept = document.get(name, {}).get(channel)
    return None if kept is None else Mark(kept.sequence, kept.bundle)
