"""Options that several sub-commands share, each defined once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from roofleet.commands import completion
from roofleet.errors import UserError


class Logits(StrEnum):
    """Positions prefill computes logits for."""

    last = "last"
    all = "all"


class WeightsChoice(StrEnum):
    """Where weights come from."""

    random = "random"
    pretrained = "pretrained"


class Dtype(StrEnum):
    """Types a model runs in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A catalogue name (see `roofleet models`), a hub name owner/name, a local folder, or "
        "package.module:factory, or file.py:factory.",
        show_default=False,
        autocompletion=completion.models,
    ),
]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Sequences in the batch.")]
PROMPT_TOKENS = 128
PromptTokens = Annotated[
    int | None,
    typer.Option(
        "--prompt-tokens", min=1, help="Random tokens in each prompt.", show_default=str(PROMPT_TOKENS)
    ),
]
Prompt = Annotated[
    str | None, typer.Option("--prompt", help="Text to use instead; needs the model's tokenizer.")
]
NewTokens = Annotated[
    int,
    typer.Option("--new-tokens", min=0, help="Tokens to generate: the first by prefill, the rest by decode."),
]
LogitsOption = Annotated[
    Logits, typer.Option("--logits", help="Compute prefill's logits for the last position only, or all.")
]
Weights = Annotated[
    WeightsChoice | None,
    typer.Option(
        "--weights",
        help="Random weights take the same time. Default: random for a catalogue model, its own for others.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Offline = Annotated[
    bool, typer.Option("--offline", help="Ask no hub: use what its cache holds, and fail at once without.")
]
Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        help="Data folder. Default: $ROOFLEET_DATA, else the platform's user data folder.",
        show_default=False,
        file_okay=False,
    ),
]
Collector = Annotated[
    str | None,
    typer.Option("--collector", metavar="HOST:PORT", help="Send runs to this collector.", show_default=False),
]
DeviceName = Annotated[
    str, typer.Option("--device", help="auto (an accelerator if there is one), cpu, cuda:0, …")
]
Server = Annotated[
    str | None,
    typer.Option("--server", metavar="HOST:PORT", help="Flight SQL of a collector.", show_default=False),
]
_RUN = "Its id, the beginning of one, its name, latest, or latest~1 for the one before."
Run = Annotated[str, typer.Argument(metavar="[RUN]", help=_RUN, autocompletion=completion.runs)]
RunNeeded = Annotated[
    str,
    typer.Argument(metavar="RUN", help=_RUN, show_default=False, autocompletion=completion.runs),
]
SeveralRuns = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help=_RUN, show_default=False, autocompletion=completion.runs),
]
VariantOption = Annotated[
    str,
    typer.Option(
        "--variant",
        metavar="NAME[+NAME]",
        help="int8-dynamic, int8-weight-only, int4-weight-only, pruned-50, pruned-structured-50 (any share), "
        "compile, compile-blocks, static-cache; joined with +.",
        autocompletion=completion.variants,
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        "--attention",
        metavar="NAME",
        help="eager, sdpa, flex or another the model offers. Default: the model's own choice.",
        show_default=False,
    ),
]
QualityText = Annotated[
    Path | None,
    typer.Option(
        "--quality-text",
        metavar="FILE",
        help="Text on which perplexity, divergence and agreement with the unchanged model are measured.",
        show_default=False,
        dir_okay=False,
    ),
]
KeepOutputs = Annotated[
    bool,
    typer.Option("--keep-outputs", help="Keep what is generated; otherwise only the prompt's digest is."),
]


def prompt_tokens_of(prompt: str | None, prompt_tokens: int | None) -> int:
    """The tokens of a random prompt; UserError if they are given beside a text, which brings its own."""
    if prompt is not None and prompt_tokens is not None:
        raise UserError("give --prompt or --prompt-tokens, not both: a text has the tokens that it has")
    return PROMPT_TOKENS if prompt_tokens is None else prompt_tokens


def label(text: str, what: str) -> str:
    """A name or a tag without the space around it; UserError for one that is empty or of several lines."""
    text = text.strip()
    if not text or not text.isprintable():
        raise UserError(f"{text!r} is no {what}: write one line of text")
    return text


def run_name(text: str) -> str:
    """The same for the name of a run, which may not be a word that means others."""
    from roofleet.naming.runs import LATEST

    if LATEST.fullmatch(text.strip()):
        raise UserError(f"{text.strip()!r} names other runs: take another name")
    return label(text, "name")


def labels_of(written: list[str]) -> dict[str, str]:
    """NAME=VALUE … as a mapping; UserError for one that is not written so."""
    found = {}
    for text in written:
        name, separator, value = text.partition("=")
        if not separator or not name or not value or set(name) & set(' ,"=!~<>') or not text.isprintable():
            raise UserError(f"{text!r} is no label: write NAME=VALUE, such as site=lab1")
        found[name] = value
    return found


Iterations = Annotated[
    str,
    typer.Option(
        "--iterations",
        metavar="N|auto",
        help="Measured iterations. auto: until the intervals are narrow or the budget is spent.",
    ),
]
Budget = Annotated[
    float, typer.Option("--budget", metavar="SECONDS", help="Longest that `--iterations auto` goes on.")
]


def iterations_of(text: str) -> int | None:
    """The number of iterations, None for `auto`; UserError for anything else."""
    if text.strip().lower() == "auto":
        return None
    if text.strip().isdecimal() and int(text) > 0:
        return int(text)
    raise UserError(f"--iterations {text}: give a number of 1 or more, or auto")


def text_of(file: Path | None) -> str | None:
    """The text of a file, None without one; UserError if it cannot be read as text."""
    if file is None:
        return None
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} could not be read as text: {error}") from None
