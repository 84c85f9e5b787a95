"""The text of a statement, before the engine's parser sees it: without comments, and bounded.

The parsers themselves can be stalled: that of DuckDB 1.5 takes quadratic time for comments (half a minute
for 40,000), that of 2.0 for brackets that stay open (two minutes for 10,000, and then the memory). So a
scanner that looks at every character once takes comments out, and refuses what is nested too deeply or is too
long. What it gives is what is checked and what is run: where it might read a quote otherwise than the engine
does, a statement's meaning could suffer, and the gate could not.
"""

from __future__ import annotations

import re

from roofleet_collector.errors import SqlError, StatementRefused

MAX_SQL_BYTES = 256 * 1024
MAX_TOKENS = 20_000
"""Words, numbers, texts and signs: what a statement's tree grows with."""

MAX_DEPTH = 200
"""Brackets within brackets."""

MAX_QUOTED_COMMENTS = 100
"""Comments that stand in a text. An engine that did not take it for one would take long over them."""

_SPACES = "\\s\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\ufeff"  # the engine takes these for blanks
_LETTER = f"(?:[A-Za-z_]|(?![{_SPACES}])[\x80-\U0010ffff])"
_TOKEN = re.compile(
    rf"""
      (?P<blank>  [{_SPACES}]++ )
    | (?P<comment> --[^\n\r]*+ )
    | (?P<block>  /\* )
    | (?P<text>   [eE]'(?:[^'\\]|\\.|'')*+' | '[^']*+' | "[^"]*+" )
    | (?P<dollar> \$(?:{_LETTER}(?:{_LETTER}|[0-9])*+)?\$ )
    | (?P<word>   {_LETTER}(?:{_LETTER}|[0-9$])*+ | [0-9]++ )
    | (?P<open>   [(\[{{] )
    | (?P<close>  [)\]}}] )
    | (?P<end>    ; )
    | (?P<quote>  ['"] )
    | (?P<sign>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK = re.compile(r"/\*|\*/")
_NOT_NEWLINE = re.compile(r"[^\n\r]")


def plain_text(sql: str) -> str:
    """The statement with blanks for its comments and for semicolons around it, every character in its place.

    Takes time in proportion to the length.

    Raises:
        StatementRefused: it is longer or nested deeper than allowed.
        SqlError: it is not Unicode, or a comment, a quote or a bracket does not end.
    """
    try:
        size = len(sql.encode())
    except UnicodeEncodeError as error:
        raise SqlError(f"the statement is not valid Unicode: {error}") from error
    if "\0" in sql:
        raise SqlError("the statement has a NUL character, behind which engines see different things")
    if size > MAX_SQL_BYTES:
        raise StatementRefused(f"the statement has {size} bytes, allowed are {MAX_SQL_BYTES}")
    parts: list[str] = []
    ends: list[int] = []  # semicolons since the last token, which are left out if no other follows
    at, depth, tokens = 0, 0, 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        assert found is not None  # the last alternative takes any character
        kind, start, at = found.lastgroup, at, found.end()
        if kind in ("comment", "block"):
            at = at if kind == "comment" else _end_of_block(sql, at)
            parts.append(_NOT_NEWLINE.sub(" ", sql[start:at]))
            continue
        if kind == "dollar":
            at = sql.find(found[0], at) + len(found[0])
            if at < start + 2 * len(found[0]):
                raise SqlError(f"Parser Error: the text that begins with {found[0]} does not end")
        elif kind == "quote":
            raise SqlError(f"Parser Error: the text that begins with {found[0]} does not end")
        elif kind == "open":
            depth += 1
        elif kind == "close":
            depth -= 1
            if depth < 0:
                raise SqlError(f'Parser Error: syntax error at or near "{found[0]}"')
        if kind == "end":
            ends.append(len(parts))
        elif kind != "blank":
            tokens += 1
            if tokens == 1:
                _leave_out(parts, ends)
            ends = []
        if depth > MAX_DEPTH:
            raise StatementRefused(f"brackets are nested more than {MAX_DEPTH} deep")
        if tokens > MAX_TOKENS:
            raise StatementRefused(f"the statement has more than {MAX_TOKENS} words and signs")
        parts.append(sql[start:at])
    if depth > 0:
        raise SqlError("Parser Error: a bracket is not closed: syntax error at end of input")
    _leave_out(parts, ends)
    text = "".join(parts)
    if text.count("/*") > MAX_QUOTED_COMMENTS:
        raise StatementRefused(f"/* stands in texts more than {MAX_QUOTED_COMMENTS} times")
    return text


def _leave_out(parts: list[str], places: list[int]) -> None:
    for place in places:
        parts[place] = " "


def _end_of_block(sql: str, at: int) -> int:
    """Where a comment ends that began before `at`; comments may lie in comments."""
    depth = 1
    while depth:
        found = _BLOCK.search(sql, at)
        if found is None:
            raise SqlError("Parser Error: unterminated /* comment")
        depth += 1 if found[0] == "/*" else -1
        at = found.end()
    return at
