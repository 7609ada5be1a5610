"""Structured logs: a constant message, and values as keys.

    _log = log.get(__name__)
    _log.info("sandbox runs", sandbox=sandbox_id, handler="runc", ms=41)

prints ``level=info logger=pods.run msg="sandbox runs" sandbox=… handler=runc ms=41`` to stderr, one line
per event, which systemd writes to the journal. Under systemd each line starts with its priority
(sd-daemon(3)), so ``journalctl -p`` works. Values can be hostile input: line breaks and control
characters are escaped.

Lines about a pod have the keys ``pod`` (namespace/name), ``sandbox`` and, if they are about a container,
``container`` and ``container_name``, in every layer: the code that starts work on a pod sets them once
with :func:`bind`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Mapping
from contextvars import ContextVar
from types import MappingProxyType

_PLAIN = re.compile(r"[!#-<>-~]+")
_VALUE_LIMIT = 2048
_SYSLOG_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}
_subject: ContextVar[Mapping[str, object]] = ContextVar("subject", default=MappingProxyType({}))


class Logger:
    """A named logger that accepts values as keyword arguments."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, /, **values: object) -> None:
        """Log an event for developers."""
        self._log(logging.DEBUG, message, values)

    def info(self, message: str, /, **values: object) -> None:
        """Log an event that an administrator can look for."""
        self._log(logging.INFO, message, values)

    def warning(self, message: str, /, **values: object) -> None:
        """Log a problem that was handled."""
        self._log(logging.WARNING, message, values)

    def error(self, message: str, /, **values: object) -> None:
        """Log a failure."""
        self._log(logging.ERROR, message, values)

    def exception(self, message: str, /, **values: object) -> None:
        """Log an unexpected failure with the traceback of the current exception."""
        self._log(logging.ERROR, message, {**values, "traceback": traceback.format_exc()})

    def _log(self, level: int, message: str, values: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, message, extra={"noderuntime_values": {**_subject.get(), **values}})


def get(name: str) -> Logger:
    """Return the logger of a module; pass ``__name__``."""
    return Logger(name)


def bind(**subject: object) -> None:
    """Set the keys of all further lines of this task, and of tasks and threads that it starts."""
    _subject.set(subject)


def set_level(level: str) -> None:
    """Log messages of this level and above from now on."""
    logging.getLogger().setLevel(level.upper())


def configure(level: str) -> None:
    """Log messages of this level and above to stderr. The command line calls it once."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(with_priority="JOURNAL_STREAM" in os.environ))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class _LineFormatter(logging.Formatter):
    """Formats a record as one line of ``key=value`` pairs, including records of libraries."""

    def __init__(self, *, with_priority: bool) -> None:
        super().__init__()
        self._with_priority = with_priority

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, object] = {
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("noderuntime."),
            "msg": record.getMessage(),
            **getattr(record, "noderuntime_values", {}),
        }
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        line = " ".join(f"{key}={_show(value)}" for key, value in values.items())
        return f"<{_SYSLOG_PRIORITY.get(record.levelno, 3)}>{line}" if self._with_priority else line


def _show(value: object) -> str:
    """Return a value on one line, quoted if needed."""
    text = str(value)
    if len(text) > _VALUE_LIMIT:
        text = f"{text[:_VALUE_LIMIT]}... ({len(text)} characters)"
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
