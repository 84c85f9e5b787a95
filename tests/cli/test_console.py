"""What people read in a terminal: words and figures stay whole in any window and any encoding."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from tests.support import roofleet_process

from roofleet import console

HEADERS = ("slowest layers", "phase", "own time a step", "p5 to p95", "bound")
ROWS = (
    ("transformer.h.0.attn.c_attn", "prefill", "94.7 µs", "90.1 µs to 99.9 µs", "overhead"),
    ("(the model itself)", "decode", "1.10 ms", "1.00 ms to 1.20 ms", "[bold]memory[/bold]"),
)
WHOLE = ("transformer.h.0.attn.c_attn", "prefill", "94.7 µs", "90.1 µs", "99.9 µs", "overhead", "memory")


def drawn(width: int) -> str:
    """The table in a window of that width."""
    text = io.StringIO()
    Console(file=text, width=width).print(console.table("Layers", HEADERS, ROWS, right=(2, 3)))
    return text.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 140])
def test_a_table_breaks_no_word_and_no_figure(width: int) -> None:
    """Columns are narrowed at spaces as far as that goes; below it each row is a block of lines."""
    text = drawn(width)
    assert max(map(len, text.splitlines())) <= width
    for whole in WHOLE:
        assert whole in text
    assert re.search(r"slowest layers +phase", text) is not None if width >= 80 else True
    assert "bold" not in text


def test_an_empty_table_is_its_headings() -> None:
    """A table without rows is drawn all the same."""
    text = io.StringIO()
    Console(file=text, width=100).print(console.table(None, (*HEADERS, ""), []))
    assert "own time a step" in text.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_unicode_gets_plain_signs(encoding: str, tmp_path: Path) -> None:
    """Signs that the encoding does not have are written in others; there is no trace."""
    answer = roofleet_process("hardware", "t4", data=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert answer.returncode == 0, answer.stderr
    assert "130 TOP/s" in answer.stdout
    assert re.search(r"\| +- \|", answer.stdout)  # an unknown roof
