"""``GET /v1/bundles/{file}``: released policies, as workers follow them.

Rules, numbered as the code marks them:

H21  Nothing but bundle files of the one folder is given away: no other suffix, no other folder, no link out of it.
H22  A file's ETag is the digest of its bytes, so that the same tag is the same file, and a part goes with its whole.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from exequatur.authority.service.answers import Refused, unavailable
from exequatur.release.file import MAX_FILE_BYTES, SUFFIX
from exequatur.statements.encoding import digest

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\Z")
_FROM = re.compile(r"bytes=(\d{1,12})-\Z", re.ASCII)


@dataclass(frozen=True)
class Part:
    """What is answered.

    Args:
        status: 200, 206, 304 or 416.
        data: The file, or the rest of it.
        headers: With the ETag.
    """

    status: int
    data: bytes
    headers: dict[str, str]


class Bundles:
    """The bundle files of a folder.

    Args:
        folder: ``None`` when none are handed out.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._held: dict[str, tuple[tuple[int, int, int], bytes, str]] = {}

    def get(
        self, name: str, *, known: str | None = None, wanted: str | None = None, if_range: str | None = None
    ) -> Part:
        """Read a file. May block.

        Args:
            name: Without a folder.
            known: Header ``If-None-Match``.
            wanted: Header ``Range``.
            if_range: Header ``If-Range``.

        Raises:
            Refused: There is none (H21), or it cannot be read.
        """
        data, tag = self._read(name)
        headers = {"ETag": tag, "Accept-Ranges": "bytes", "Cache-Control": "no-cache"}
        if known is not None and tag in (each.strip() for each in known.split(",")):
            return Part(304, b"", headers)
        match = _FROM.match(wanted) if wanted is not None and if_range in (None, tag) else None
        if match is None:
            return Part(200, data, headers)
        begin = int(match[1])
        if begin >= len(data):
            return Part(416, b"", {**headers, "Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        return Part(206, data[begin:], headers)

    def _read(self, name: str) -> tuple[bytes, str]:
        missing = Refused(404, "not_found", "There is no such bundle file")
        if self._folder is None or not _NAME.match(name) or not name.endswith(SUFFIX):  # [H21]
            raise missing
        try:
            descriptor = os.open(self._folder / name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # H21
        except OSError as err:
            self._held.pop(name, None)
            if err.errno in (errno.ENOENT, errno.ELOOP, errno.ENAMETOOLONG):
                raise missing from None
            raise unavailable(f"{self._folder / name}: {err.strerror}") from err
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_FILE_BYTES:  # [H21]
                raise missing
            stamp = (found.st_mtime_ns, found.st_size, found.st_ino)
            held = self._held.get(name)
            if held is None or held[0] != stamp:
                with os.fdopen(descriptor, "rb", closefd=False) as stream:
                    data = stream.read()
                held = self._held[name] = (stamp, data, f'"{digest(data)}"')  # H22
        finally:
            os.close(descriptor)
        return held[1], held[2]
