"""The options that a grid of runs has, each defined once, and their values as they are written.

Values are written `1,2,4` and `hidden_size=256,512`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from roofleet.commands import options
from roofleet.commands.gathering import gathering
from roofleet.errors import UserError
from roofleet_agent.workload import BUDGET_S

Asked = dict[str, list[Any]]
"""The values that each option of a grid is asked for with, by its name in `roofleet_analysis.sweeps`."""


def _asked(
    batch_size: Annotated[
        str, typer.Option("--batch-size", metavar="N,N,…", help="Sequences in the batch.")
    ] = "1",
    prompt_tokens: Annotated[
        str, typer.Option("--prompt-tokens", metavar="N,N,…", help="Random tokens in each prompt.")
    ] = "128",
    new_tokens: Annotated[
        str, typer.Option("--new-tokens", metavar="N,N,…", help="Tokens to generate for each sequence.")
    ] = "32",
    dtype: Annotated[
        str,
        typer.Option(
            "--dtype",
            metavar="NAME,NAME,…",
            help="fp32, bf16, fp16; auto is fp32 on a CPU, bf16 on an accelerator and, where nothing is run, "
            "the one the model was published in.",
        ),
    ] = "auto",
    variant: Annotated[
        str, typer.Option("--variant", metavar="NAME,NAME,…", help="As for `roofleet profile`.")
    ] = "base",
    attention: Annotated[
        str | None,
        typer.Option(
            "--attention",
            metavar="NAME,NAME,…",
            help="Implementations. Default: the model's own choice.",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=N,N,…",
            help="Numbers of the model's configuration to vary, such as hidden_size, num_hidden_layers or "
            "vocab_size; the weights are random then. May be given again.",
            show_default=False,
        ),
    ] = None,
    iterations: options.Iterations = "auto",
    budget: options.Budget = BUDGET_S,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Iterations before them, left out.")] = 2,
    logits: options.LogitsOption = options.Logits.last,
    weights: options.Weights = None,
) -> Asked:
    """The values that were asked for; UserError if they are none."""
    if change and weights is options.WeightsChoice.pretrained:
        raise UserError("--set makes another model, for which there are no pretrained weights: leave one out")
    return {
        **settings(change or []),
        "variant": texts("variant", variant),
        "dtype": texts("dtype", dtype, [d.value for d in options.Dtype]),
        "attention": texts("attention", attention) if attention is not None else [None],
        "batch_size": numbers("batch-size", batch_size, 1),
        "prompt_tokens": numbers("prompt-tokens", prompt_tokens, 1),
        "new_tokens": numbers("new-tokens", new_tokens, 0),
        "iterations": [options.iterations_of(iterations)],
        "budget_s": [budget],
        "warmup": [warmup],
        "logits": [logits.value],
        "weights": ["random" if change else weights.value if weights else None],
    }


gridded = gathering(asked=_asked)
"""Gives a command the options of a grid in the place of its keyword `asked`."""


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
