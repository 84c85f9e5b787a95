"""The values of a sweep's options, as they are written: `1,2,4` and `hidden_size=256,512`."""

from __future__ import annotations

from collections.abc import Sequence

from roofleet.errors import UserError


def texts(option: str, written: str, known: Sequence[str] | None = None) -> list[str]:
    """The values between commas, each once; UserError for an empty one, or one that is not known."""
    values = [value.strip() for value in written.split(",")]
    for value in values:
        if not value:
            raise UserError(f"--{option} {written!r} has an empty value: write values between single commas")
        if known is not None and value not in known:
            raise UserError(f"--{option} {value!r} is not known: there are {', '.join(known)}")
    return list(dict.fromkeys(values))


def numbers(option: str, written: str, least: int) -> list[int]:
    """The whole numbers between commas, each once; UserError for what is none, or below `least`."""
    values = []
    for value in texts(option, written):
        try:
            number = int(value)
        except ValueError:
            raise UserError(f"--{option} {value!r} is no whole number: write numbers such as 1,2,4") from None
        if number < least:
            raise UserError(f"--{option} {value} is too low: it must be at least {least}")
        values.append(number)
    return list(dict.fromkeys(values))


def settings(written: Sequence[str]) -> dict[str, list[int]]:
    """NAME=N,N,… as a mapping; UserError for one without a name or values, or given twice."""
    found: dict[str, list[int]] = {}
    for text in written:
        name, separator, values = text.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier():
            raise UserError(f"--set {text!r}: write NAME=N,N,… such as hidden_size=256,512")
        if name in found:
            raise UserError(f"--set {name} is given twice: put all its values into one")
        found[name] = numbers(f"set {name}", values, 1)
    return found
