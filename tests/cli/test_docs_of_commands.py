"""The commands of the pages are such as the command line takes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from roofleet.commands.given import given
from roofleet.main import agent, app, collector, dashboard

ROOT = Path(__file__).parents[2]
INSTALLING = {"agent": agent.agent, "collector": collector.collector, "dashboard": dashboard.dashboard}


def commands(page: str) -> list[list[str]]:
    """The command lines of `roofleet` in the shell blocks of a page, as words."""
    found = []
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.shlex(line, posix=True, punctuation_chars=True)
            words.whitespace_split = True
            commands: list[list[str]] = [[]]
            for word in words:
                commands.append([]) if set(word) <= set("|&;()<>") else commands[-1].append(word)
            for command in commands:
                place = next(
                    (i for i, w in enumerate(command) if re.search(r"^(.*/bin/)?roofleet$", w)), None
                )
                if place == 0 or (place and {"--", "env"} & set(command[:place])):
                    found.append(command[place + 1 :])
    return [[word for word in words if word != "…"] for words in found]


def read(command: Any, words: list[str], names: tuple[str, ...] = ()) -> None:
    """Reads the words as the command would; raises what it would say."""
    context = command.make_context(" ".join(("roofleet", *names)), list(words))
    left = [*getattr(context, "_protected_args", ()), *context.args]
    if hasattr(command, "resolve_command") and left:
        name, inner, left = command.resolve_command(context, left)
        read(inner, left, (*names, name))
    elif names[-1:] == ("install",):
        given(INSTALLING[names[0]], names[0], left)
    else:
        assert not left


@pytest.mark.parametrize("page", ["README.md", "docs/deploy.md", "docs/jobs.md", "docs/keys.md"])
def test_the_commands_of_a_page_are_taken(page: str) -> None:
    """Each is read by the real parser, the options that `install` puts into a unit too."""
    found = commands(page)
    assert len(found) >= 7
    root = typer.main.get_command(app)
    for words in found:
        try:
            read(root, words)
        except Exception as error:
            raise AssertionError(f"{page}: roofleet {shlex.join(words)}") from error


def test_the_pages_lead_to_one_another() -> None:
    """README leads to the page on deploying, and that to what lies in deploy/."""
    assert "(docs/deploy.md)" in (ROOT / "README.md").read_text()
    for file in re.findall(r"deploy/[\w/.-]*\w", (ROOT / "docs/deploy.md").read_text()):
        assert (ROOT / file).exists(), file
