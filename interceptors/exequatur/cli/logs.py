"""What long-running commands log."""

from __future__ import annotations

import logging
import sys

from exequatur.audit.wording import shown


class _Shown(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(f"{record.levelname}: {record.getMessage()}")


def log_to_stderr() -> None:
    """Print warnings and errors, a line each, whatever names of workflows they hold."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Shown())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
