"""How long a collector keeps what, from `collector.toml` beside its data and from `--keep`.

    [keep]
    readings = "7d"             # as they came, one a second; then what minutes of them say
    readings_minutes = "90d"    # then what hours of them say
    readings_hours = "forever"
    spans = "forever"           # raw spans of runs; then what is kept of each layer and iteration
    runs = "forever"            # whole runs, but pinned ones; then nothing
    jobs = "forever"            # jobs that have ended
    audit = "forever"
    losses = "forever"

What is not said is kept as above.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from pathlib import Path

from roofleet_collector.errors import PolicyUnusable

FILE_NAME = "collector.toml"
FOREVER = "forever"
LEAST_READINGS = timedelta(hours=2)
"""Cards and charts of what is now read readings as they came, of the last hour."""
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"(\d{1,6})\s*([mhdw])")


@dataclass(frozen=True)
class Policy:
    """Ages after which rows are rolled up or deleted; None keeps them for ever.

    The age of a reading is from when it was read, that of a run from when it ended or from when its last rows
    came, whichever is later. Readings that are older than two ages at once go through both.
    """

    readings: timedelta | None = timedelta(days=7)
    readings_minutes: timedelta | None = timedelta(days=90)
    readings_hours: timedelta | None = None
    spans: timedelta | None = None
    runs: timedelta | None = None
    jobs: timedelta | None = None
    audit: timedelta | None = None
    losses: timedelta | None = None

    def __post_init__(self) -> None:
        if self.readings is not None and self.readings < LEAST_READINGS:
            raise PolicyUnusable(
                f"readings are kept for {age_text(self.readings)}: the least is {age_text(LEAST_READINGS)}, "
                "since pages show what is now from them"
            )


def read_policy(file: Path, said: Sequence[str] = (), *, must_be: bool = False) -> Policy:
    """The policy of a file and, above it, of texts such as `readings=7d`. PolicyUnusable for what is not
    known: a collector does not guess what it may delete."""
    ages = _of_file(file, must_be=must_be)
    for text in said:
        name, is_said, age = text.partition("=")
        if not is_said:
            raise PolicyUnusable(f"--keep is {text!r:.80}; write {_NAMES[0]}=7d")
        ages |= _checked("--keep", {name.strip(): age})
    return replace(Policy(), **ages)


def _of_file(file: Path, *, must_be: bool) -> dict[str, timedelta | None]:
    try:
        said = tomllib.loads(file.read_text())
    except FileNotFoundError:
        if must_be:
            raise PolicyUnusable(f"there is no {file}") from None
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise PolicyUnusable(f"{file} cannot be read: {error}") from None
    for section, keys in said.items():
        if section != "keep" or not isinstance(keys, dict):
            raise PolicyUnusable(f"{file} has {section!r}; it may have the section keep")
    return _checked(f"{file}: [keep]", said.get("keep", {}))


def _checked(place: str, said: Mapping[str, object]) -> dict[str, timedelta | None]:
    ages = {}
    for name, age in said.items():
        if name not in _NAMES:
            raise PolicyUnusable(f"{place} has {name!r:.80}; it may have {', '.join(_NAMES)}")
        try:
            ages[name] = parsed_age(age if isinstance(age, str) else "")
        except ValueError:
            raise PolicyUnusable(
                f"{place}: {name} is {age!r:.80}; it must be an age such as 90m, 12h, 7d, 8w, or {FOREVER}"
            ) from None
    return ages


def age_text(age: timedelta | None) -> str:
    """An age as it is written: `7d`, `36h`, `forever`."""
    if age is None:
        return FOREVER
    minutes = round(age.total_seconds() / 60)
    for unit, length in (("d", 24 * 60), ("h", 60)):
        if minutes % length == 0:
            return f"{minutes // length}{unit}"
    return f"{minutes}m"


def parsed_age(text: str) -> timedelta | None:
    """The age that a text says, None for `forever`. ValueError if it says none."""
    if text.strip() == FOREVER:
        return None
    found = _AGE.fullmatch(text.strip())
    if not found or not int(found[1]):
        raise ValueError(text)
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


_NAMES = tuple(field.name for field in fields(Policy))
