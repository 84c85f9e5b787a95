"""The log of the processes that stay: one mechanism, as text for people and the journal, or as JSON lines.

What is logged goes to standard error through `logging`. Fields are given with `extra`: `log.info("…",
extra={"job_id": …})`. In text they stand behind the message, unless it says them already.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

from roofleet.beside import Beside, may_stall

FIELDS = ("agent_id", "run_id", "job_id", "device_id", "identity", "peer", "grpc", "sql", "data")
"""What a line may tell beside its message; anything else in `extra` is left out."""

SECRET = re.compile(r"\b(rf[a-z]_[0-9a-f]{0,8})[\w.-]{16,}|((?i:bearer)\s+)[^\s'\"]+")
"""Tokens and codes, of which their public part is kept, and whatever stands where a token is shown."""


class Format(StrEnum):
    """How a line of the log is written."""

    text = "text"
    json = "json"


class Level(StrEnum):
    """The least that is logged."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


def keep_log(format: Format, level: Level, stream: TextIO | None = None) -> None:
    """Logs to standard error from now on, with what Python warns of and what nobody caught in a thread."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(Beside(stream) if may_stall(stream) else stream)
    handler.setFormatter(
        Lines() if format is Format.json else Text(_is_journal(stream), _is_terminal(stream))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for noisy in ("waitress.queue", "grpc"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.captureWarnings(True)
    threading.excepthook = _uncaught
    if format is Format.json:  # the library below gRPC writes lines of its own
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def keep_warnings() -> None:
    """For commands that end: warnings on standard error, as they are worded."""
    _write(sys.stderr, Plain(), logging.WARNING)


def _write(stream: TextIO, formatter: logging.Formatter, level: int | str) -> None:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)


def say_always(**fields: Callable[[], str]) -> None:
    """Fields that every line of this process has from now on, each as it is then."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, _Formatter):
            handler.formatter.always |= fields


def announce(name: str, text: str, **fields: str) -> None:
    """What a process tells who started it, on standard output; as a line of the log where those are JSON."""
    if _is_json():
        logging.getLogger(f"roofleet.{name}").info(text, extra=fields)
    else:
        print(f"{name}: {without_secrets(text)}", flush=True)


def complain(line: str) -> None:
    """Why a command failed, on standard error; as a line of the log where those are JSON."""
    if _is_json():
        logging.getLogger("roofleet").error(line)
    else:
        print(f"error: {without_secrets(line)}", file=sys.stderr)


def without_secrets(text: str) -> str:
    """The text with its tokens and codes cut to what is no secret."""
    return SECRET.sub(lambda found: f"{found[1] or found[2]}…", text)


class _Formatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__()
        self.always: dict[str, Callable[[], str]] = {}

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """The fields of a line, in their order."""
        given = {name: value() for name, value in self.always.items()}
        given |= {name: value for name, value in vars(record).items() if name in FIELDS and value is not None}
        return {name: given[name] for name in FIELDS if name in given}


class Lines(_Formatter):
    """A JSON object for each line: time in UTC, level, logger, message, fields, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        told: dict[str, Any] = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self.fields(record),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        hidden = {name: without_secrets(str(value)) for name, value in told.items()}
        return json.dumps(hidden, ensure_ascii=False)


class Text(_Formatter):
    """A line for people; for the journal without time, which that has, but with the level that it reads."""

    _PRIORITIES = ((logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6), (logging.NOTSET, 7))
    _COLOURS = ((logging.ERROR, 31), (logging.WARNING, 33), (logging.INFO, 32), (logging.NOTSET, 36))

    def __init__(self, journal: bool, colours: bool) -> None:
        super().__init__()
        self._journal, self._colours = journal, colours

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        message = record.getMessage().replace("\n", " ")  # a line of its own would look like another's
        for name, value in self.fields(record).items():
            if str(value) not in message and name not in self.always:
                message += f" {name}={value}"
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        message = without_secrets(_harmless(message))
        if self._journal:
            line = f"{record.name}: {message}"
            return "\n".join(f"<{self._of(self._PRIORITIES, record)}>{part}" for part in line.split("\n"))
        level = record.levelname
        if self._colours:
            level = f"\x1b[{self._of(self._COLOURS, record)}m{level}\x1b[0m"
        return f"{_moment(record)} {level} {record.name}: {message}"

    @staticmethod
    def _of(table: tuple[tuple[int, int], ...], record: logging.LogRecord) -> int:
        return next(value for least, value in table if record.levelno >= least)


class Plain(logging.Formatter):
    """The message alone."""

    def format(self, record: logging.LogRecord) -> str:
        """See the class."""
        return without_secrets(_harmless(super().format(record)))


def _moment(record: logging.LogRecord) -> str:
    """When it was, in UTC, as ISO 8601 has it."""
    at = datetime.fromtimestamp(record.created, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _harmless(text: str) -> str:
    """Text that others may have had a part in, without what would steer a terminal."""
    return "".join(
        sign if sign.isprintable() or sign == "\n" else "\N{REPLACEMENT CHARACTER}" for sign in text
    )


def _is_json() -> bool:
    return any(isinstance(handler.formatter, Lines) for handler in logging.getLogger().handlers)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def _is_journal(stream: TextIO) -> bool:
    """Whether it is connected to the journal, which systemd says by device and inode (systemd.exec(5))."""
    try:
        place = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no file behind it
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{place.st_dev}:{place.st_ino}"


def _uncaught(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is SystemExit:
        return
    name = what.thread.name if what.thread else "a thread"
    value = what.exc_value or what.exc_type()
    logging.getLogger("roofleet").error(
        "%s ended by an error", name, exc_info=(what.exc_type, value, what.exc_traceback)
    )
