"""What to know before relying on a run: noise, broken outputs, unknown ops, the variant and its quality."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from roofleet_analysis.units import count_text, moment_text, percent_text

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

_ADVICE = {
    "interval": "measure more iterations (--iterations)",
    "other work": "stop what else runs on the machine",
    "heat or power": "let the device cool, or run it at a lower power limit",
    "the clock moved": "hold the clock still (governor `performance`, or a locked GPU clock)",
}
"""A word of a reason in `noise`, and what helps against it."""
_ASKED_IN_VAIN = ("it could not be measured", "the device has no room")
"""How reasons begin that an unchanged model has only if its quality was asked for; others need no telling."""
_PATHS_SHOWN = 3
_OUTPUTS_SHOWN = 4
_OUTPUT_SHOWN = 400
"""Sequences that are shown, and characters of each; all is in the table `outputs`."""


def print_warnings(console: Console, row: dict[str, Any]) -> None:
    """A run that failed, gave out numbers that are none, or was too noisy to tell its times."""
    from rich.markup import escape

    if row["status"] == "analyzed":
        console.print("counted and never run: it has no times")
    elif row["error"]:
        console.print(f"[bold red]{row['status']}:[/bold red] {escape(row['error'])}")
    if row["outputs_finite"] is False:
        console.print(
            "[bold red]the model gave out NaN or infinite numbers:[/bold red] its times are those of a model "
            "that is broken in this dtype or variant"
        )
    if row.get("fault"):  # an older collector does not know it
        console.print(f"[bold yellow]above its roof, marked (!):[/bold yellow] {escape(row['fault'])}")
    if row["noise"]:
        console.print(
            f"[bold yellow]these times are too noisy to rely on:[/bold yellow] {escape(row['noise'])}"
        )
        helps = [advice for word, advice in _ADVICE.items() if word in row["noise"]]
        console.print(f"  what helps: {'; '.join(helps)}", markup=False)


def print_notes(
    console: Console, query: Callable[[str, tuple[object, ...]], pa.Table], row: dict[str, Any]
) -> None:
    """Ops without a formula, what the variant could not be applied to, and why no quality is known."""
    unknown = query(
        "SELECT phase, op, calls, share_of_time FROM unknown_ops WHERE run_id = ? "
        "ORDER BY share_of_time DESC NULLS LAST, op, phase DESC",
        (row["run_id"],),
    ).to_pylist()
    if unknown:
        count = row["unknown_ops"] or 0
        ops = "1 op has no cost formula and is" if count == 1 else f"{count} ops have no cost formula and are"
        console.print(f"{ops} in none of these figures:")
    for op in unknown:
        share = (
            ""
            if op["share_of_time"] is None
            else f", {percent_text(op['share_of_time'])} of the time of its ops"
        )
        console.print(
            f"  {op['op']}: {count_text(op['calls'])} calls a step of {op['phase']}{share}", markup=False
        )
    if row.get("spans_let_go_at") is not None:
        console.print(
            f"its raw spans were let go on {moment_text(row['spans_let_go_at'])}, by the collector's policy; "
            "its figures stay as they were"
        )
    for line in variant_lines(row["variant"], row["variant_notes"]):
        console.print(line, markup=False)
    unknown_quality = row["quality_unknown"] or ""
    if unknown_quality and (row["variant"] != "base" or unknown_quality.startswith(_ASKED_IN_VAIN)):
        console.print(f"what this costs in quality is not known: {row['quality_unknown']}", markup=False)


def print_outputs(console: Console, outputs: list[dict[str, Any]]) -> None:
    """What the sequences of a run generated, rows of `outputs`: text where there is some, else token ids."""
    if not outputs:
        return
    console.print("what it generated" + (", first sequences" if len(outputs) > _OUTPUTS_SHOWN else ""))
    for row in outputs[:_OUTPUTS_SHOWN]:
        said = repr(row["text"]) if row["text"] is not None else ", ".join(map(str, row["token_ids"]))
        if len(said) > _OUTPUT_SHOWN:
            said = f"{said[:_OUTPUT_SHOWN]}… ({len(row['token_ids'])} tokens)"
        what = "" if row["text"] is not None else "tokens "
        console.print(f"  {row['sequence_index']}: {what}{said}", markup=False)
    console.print()


def variant_lines(variant: str, notes: str | None) -> list[str]:
    """Where model and checkpoint differ, and what the variant could not be applied to: a line for each reason
    and what was done instead.

    `notes` is a JSON list of objects with `path`, `reason` and `done`.
    """
    heads = {True: "not all is as the checkpoint has it:", False: f"{variant} was not applied everywhere:"}
    if variant == "base":
        heads[False] = "to know of this model:"
    grouped: dict[bool, dict[tuple[str, str], list[str]]] = {True: {}, False: {}}
    for note in json.loads(notes) if notes else []:
        reason, done = (str(note.get(name) or "") for name in ("reason", "done"))
        of_checkpoint = reason.startswith("the checkpoint")
        grouped[of_checkpoint].setdefault((reason, done), []).append(
            str(note.get("path") or "(the model itself)")
        )
    lines = []
    for of_checkpoint, reasons in grouped.items():
        lines += [heads[of_checkpoint]] if reasons else []
        for (reason, done), paths in reasons.items():
            more = f" and {len(paths) - _PATHS_SHOWN} more" if len(paths) > _PATHS_SHOWN else ""
            shown = f"  {', '.join(paths[:_PATHS_SHOWN])}{more}: {reason}"
            lines.append(shown + (f" ({done})" if done else ""))
    return lines


def quality_facts(row: dict[str, Any]) -> list[tuple[str, str | None]]:
    """What the variant costs in quality, as far as that is known."""
    against = f" against {row['quality_baseline']}" if row["quality_baseline"] else ""

    def known(value: float | None, text: str) -> str | None:
        return None if value is None else text

    return [
        (
            "perplexity",
            known(
                row["perplexity"],
                count_text(row["perplexity"])
                + (
                    f", baseline {count_text(row['baseline_perplexity'])}"
                    if row["baseline_perplexity"]
                    else ""
                ),
            ),
        ),
        (f"KL divergence{against}", known(row["kl_divergence"], f"{count_text(row['kl_divergence'])} nats")),
        (f"same top token{against}", known(row["top1_agreement"], percent_text(row["top1_agreement"]))),
    ]
