"""Files that `install` writes and `uninstall` takes away, none of which anybody else's work is lost with."""

from __future__ import annotations

import os
from pathlib import Path

from roofleet.errors import UserError

SIGN = "# Written by `roofleet "
"""What a file of ours begins with."""


def place(files: dict[Path, str], *, force: bool) -> dict[Path, str]:
    """Writes files, all or, if one would lose what is there, none; what became of each, in words.

    UserError for a file that is there and differs, unless `force`; or that cannot be written.
    """
    there = {file: _text_of(file) for file in files}
    differing = [file for file, text in files.items() if there[file] not in (None, text)]
    if differing and not force:
        raise UserError(
            f"{differing[0]} is there and differs from what would be written: --print shows that, --force "
            "replaces it"
        )
    done = {}
    for file, text in files.items():
        if there[file] == text:
            done[file] = "was as it should be"
            continue
        _write(file, text)
        done[file] = "replaced" if file in differing else "written"
    return done


def take_away(files: list[Path], *, force: bool) -> list[Path]:
    """Removes those that are there; UserError if one is not of ours, unless `force`."""
    there = {file: text for file in files if (text := _text_of(file)) is not None}
    foreign = [file for file, text in there.items() if not text.startswith(SIGN)]
    if foreign and not force:
        raise UserError(f"{foreign[0]} was not written by `roofleet`: --force removes it all the same")
    for file in there:
        try:
            file.unlink()
        except OSError as error:
            raise UserError(f"{file} cannot be removed: {error.strerror}") from None
    return list(there)


def _text_of(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} cannot be read: {error}") from None


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text)
        beside.chmod(0o644)
        beside.replace(file)
    except OSError as error:
        raise UserError(
            f"{file} cannot be written ({error.strerror}): do it as root, or write a unit of your own with "
            "--user"
        ) from None
    finally:
        beside.unlink(missing_ok=True)
