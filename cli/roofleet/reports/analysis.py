"""An analysis as text: what a model is, what a step costs, what it holds, and where it fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from roofleet.console import facts, table
from roofleet_analysis.units import (
    UNKNOWN,
    capacity_text,
    count_text,
    flops_text,
    time_text,
    traffic_text,
    workload_text,
)

if TYPE_CHECKING:
    from rich.console import Console

Found = dict[str, Any]


def print_analysis(out: Console, result: Found) -> None:
    """Prints what `roofleet.analyzing.analysis.analyze` returned."""
    from rich.markup import escape

    changed = "".join(
        f", {escape(result[key])}"
        for key, usual in (("variant", "base"), ("attention", None))
        if result[key] not in (usual, None)
    )
    out.print(
        f"\n[bold]{escape(result['model'])}[/bold], {_dtype(result)}{changed}, "
        + workload_text(result["batch_size"], result["prompt_tokens"], result["new_tokens"])
        + f", logits {result['logits']}"
    )
    stored = result["published"]
    kv, memory = result["kv_bytes_per_token"], result["memory"]
    cache = f"{capacity_text(kv)} a token, {capacity_text(memory['kv_cache_bytes'])} with all of them"
    out.print(
        facts(
            [
                ("parameters", f"{count_text(result['parameters'])} ({result['parameters']:,})"),
                ("KV cache", cache if kv is not None else "none"),
                *([("weights", _weights(stored))] if stored else []),
                ("memory needed", capacity_text(memory["needed_bytes"])),
            ]
        )
    )
    out.print(_steps(result["phases"]))
    for figures in result["phases"].values():
        if figures["unknown_ops"]:
            out.print("no formula for: " + ", ".join(figures["unknown_op_names"]), markup=False)
    out.print(_memory(memory["phases"]))
    out.print(_hardware(result))
    for line in _notes(result):
        out.print(line, markup=False, style="dim")


def _dtype(result: Found) -> str:
    """The dtype that is analysed, and the one that weights are published in where it is another."""
    stored = result["published"]
    return result["dtype"] if stored is None else f"{result['dtype']} with weights as published"


def _weights(stored: Found) -> str:
    packed, plain = (capacity_text(stored[key]) for key in ("bytes", "unpacked_bytes"))
    dtype, other = stored["dtype"], stored["elsewhere"]
    return f"{packed}, {dtype} in {stored['where']}, {other} elsewhere; {plain} unpacked to {other}"


def _steps(phases: Found) -> Any:
    rows = [
        [
            phase,
            flops_text(f["matmul_flops"]),
            flops_text(f["needed_flops"]),
            flops_text(f["other_flops"]),
            traffic_text(f["weight_bytes"]),
            traffic_text(f["activation_bytes"]),
            traffic_text(f["kv_bytes"]),
            str(f["unknown_ops"]),
        ]
        for phase, f in phases.items()
    ]
    headers = ["phase", "matmul", "needed", "other", "weights", "activations", "KV cache", "unknown ops"]
    title = f"One step: work, and bytes read and written{_context(phases)}"
    return table(title, headers, rows, right=range(1, 8))


def _context(phases: Found) -> str:
    """Which decode step is meant, for a heading."""
    if "decode" not in phases:
        return ""
    return f"; decode is its middle step, after {phases['decode']['cached_tokens']:,} cached tokens"


def _memory(phases: Found) -> Any:
    rows = [
        [
            "last decode" if phase == "decode" else phase,
            *(capacity_text(f[f"{kind}_bytes"]) for kind in ("weight", "kv", "activation", "peak")),
            f"{f['peak_path'] or '(the model itself)'}, {f['peak_op']}",
        ]
        for phase, f in phases.items()
    ]
    headers = ["step", "weights", "KV cache", "activations", "together", "at"]
    return table("Memory at the peak of a step", headers, rows, right=range(1, 5))


def _hardware(result: Found) -> Any:
    searched = any(chip["largest"] for chip in result["hardware"])
    headers = ["hardware", "memory", "offered", "fits"]
    headers += ["largest batch", "largest prompt"] if searched else []
    right = [1, 2, *((4, 5) if searched else ())]
    for phase in result["phases"]:
        right.append(len(headers))
        headers += [f"{phase} at least", "bound"]
    rows = []
    for chip in result["hardware"]:
        about = "≈ " if chip["usable_is_estimate"] else ""
        fits = "yes" if chip["fits"] else f"no: takes {chip['devices']:,}"
        offered = about + capacity_text(chip["offered_bytes"])
        cells = [chip["name"], capacity_text(chip["memory_bytes"]), offered, fits]
        if searched:
            cells += [_size(chip["largest"], name) for name in ("batch_size", "prompt_tokens")]
        for bound in chip["phases"].values():
            cells += [time_text(bound["lower_bound_ns"]), bound["bound"]] if bound else ["no roof", UNKNOWN]
        rows.append(cells)
    title = f"Hardware: what fits, and the time no step can beat on one device{_context(result['phases'])}"
    return table(title, headers, rows, right=right)


def _size(largest: Found | None, name: str) -> str:
    if largest is None:
        return UNKNOWN
    found = largest[name]
    if not found["value"]:
        return "none"
    more = {"positions": " (all positions)", "search": " or more", "memory": ""}
    return f"{found['value']:,}{more[found['limited_by']]}"


def _notes(result: Found) -> Iterable[str]:
    """How figures were found, where that is not plain."""
    yield "Memory is that of tensors; what kernels take comes on top."
    if stored := result["published"]:
        yield (
            f"Weights are counted as the checkpoint stores them. Where there are no kernels for "
            f"{stored['dtype']} transformers unpacks them: --dtype {stored['elsewhere']} counts that."
        )
    chips = result["hardware"]
    if chips:
        reserves = " or ".join(capacity_text(r) for r in sorted({chip["reserve_bytes"] for chip in chips}))
        yield (
            "Offered is what a program can have of a device's memory (≈ where it is estimated) less a "
            f"reserve of {reserves} for context and allocator."
        )
    if not all(chip["fits"] for chip in chips):
        yield (
            "Where it does not fit: the least number of devices, with weights, cache and activations split "
            "evenly between them."
        )
    yield (
        "Needed is the matrix work that no implementation can do without: what a mask hides is not, nor what "
        "could have been kept in the cache."
    )
    searched = [chip["largest"] for chip in result["hardware"] if chip["largest"]]
    traced = sum(found["traced"] for chip in searched for found in chip.values())
    if traced:  # none where the weights alone are too much
        yield (
            f"Largest batch at {result['prompt_tokens']} prompt tokens, largest prompt at batch "
            f"{result['batch_size']}: {traced} sizes were traced; each answer fits, and the next size does "
            "not, save where a remark says otherwise."
        )
