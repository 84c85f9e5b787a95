"""What the command line reports in one line, and the exit status that goes with it.

0    done
1    it failed, for a reason that is not the caller's
2    the caller's mistake: a name, an option, a statement, a port in use
3    the collector does not answer; what was measured is kept
130  interrupted
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager

FAILED, USAGE, UNREACHABLE, INTERRUPTED = 1, 2, 3, 130


class UserError(Exception):
    """The caller's mistake: the message says what was given, what was expected and what to do."""

    def __init__(self, message: str, status: int = USAGE) -> None:
        super().__init__(message)
        self.status = status


# Errors of the parts that are the caller's to mend. Named, so that reporting an error of one part does not
# import the others.
_USERS = {
    "roofleet_agent.errors": (
        "ModelNotFound",
        "AgentRuns",
        "ModelRefused",
        "DeviceNotFound",
        "WorkloadRefused",
        "RulesUnusable",
    ),
    "roofleet_collector.errors": (
        "SqlError",
        "AddressInUse",
        "StoreInUse",
        "StoreUnreadable",
        "KeysUnreadable",
        "Unprotected",
        "PolicyUnusable",
    ),
    "roofleet_proto.door": ("NoEntry",),
}
_FAILED = {"roofleet_agent.errors": ("OutOfMemory",), "roofleet_collector.errors": ("StoreBroken",)}
_UNREACHABLE = {"roofleet_agent.errors": ("CollectorUnreachable",), "roofleet.api.client": ("ServerAway",)}


def status_of(error: BaseException) -> int | None:
    """The exit status of an error that is reported in one line; None for one that is a fault of ours."""
    if isinstance(error, UserError):
        return error.status
    for kinds, status in ((_USERS, USAGE), (_FAILED, FAILED), (_UNREACHABLE, UNREACHABLE)):
        for module, names in kinds.items():
            if any(k.__module__ == module and k.__name__ in names for k in type(error).__mro__):
                return status
    # A folder or file that cannot be used: the system's word for it is clear enough.
    return USAGE if isinstance(error, OSError) else None


def needs(extra: str, module: str) -> None:
    """UserError with the install command if a part's libraries are not installed."""
    with needing(extra):
        importlib.import_module(module)


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """The same for imports inside the with statement."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"this needs {error.name}, which is not installed: pip install 'roofleet[{extra}]'"
        ) from None


def line_of(error: BaseException) -> str:
    """An error in one line or a few, as its user should read it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)
