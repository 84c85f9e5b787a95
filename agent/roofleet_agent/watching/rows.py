"""What a watched run found, as rows: the model, its calls, what they cost, and what to know of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace

from torch import nn

from roofleet_agent.measuring.steps import TimedStep
from roofleet_agent.passes.base import Found, of_run
from roofleet_agent.passes.describing import layer_rows, model_row
from roofleet_agent.passes.memory import memory_rows
from roofleet_agent.passes.timing import step_rows
from roofleet_agent.passes.tracing import StatedCost, traced_rows
from roofleet_agent.storage import held_parameters, stored_bytes
from roofleet_agent.tracing.operands import dtype_name
from roofleet_agent.variants import Note
from roofleet_agent.watching.calls import Calls
from roofleet_agent.watching.costing import Costs
from roofleet_agent.watching.phases import Phase


def described(name: str, model: nn.Module, calls: Calls) -> Iterator[Found]:
    """The model, its layers, and the work as the calls tell it: that of a generation, or of a forward."""
    config = getattr(model, "config", None)
    ask = getattr(config, "to_json_string", None)
    generates = bool({"prefill", "decode"} & set(calls.phases))
    task, parameters = "generate" if generates else "encode", held_parameters(model)
    row = model_row(name, "module", model, task, parameters, ask() if callable(ask) else None)
    yield Found("models", [row])
    yield layer_rows(model)
    phases = calls.phases
    first = phases.get("prefill") or phases.get("forward") or next(iter(phases.values()))
    decode, generations = phases.get("decode"), max(calls.generations, 1)
    floating = next((p for p in model.parameters() if p.is_floating_point()), None)
    yield of_run(
        model_id=row["model_id"],
        dtype="fp32" if floating is None else dtype_name(floating),
        variant="base",
        weights="own",
        attention=getattr(config, "_attn_implementation", None),
        engine="watch",
        batch_size=first.batch,
        prompt_tokens=first.tokens,
        new_tokens=int(generates) + (0 if decode is None else decode.begun // generations),
        logits=first.logits,
        iterations=generations,
        warmup=0,
        parameters=parameters,
        parameter_bytes=stored_bytes(model),
    )


def costs_found(costs: Costs, opaque: Collection[str], stated_cost: StatedCost) -> Iterator[Found]:
    """Ops, edges and memory of the phases that were played."""
    traces = {name: played.traced for name, played in costs.played.items()}
    yield from traced_rows(traces, None, stated_cost, opaque)
    for played in costs.played.values():
        yield from memory_rows(played.memory)
    peaks = [m.peak_bytes for played in costs.played.values() for m in played.memory.phases.values()]
    yield of_run(
        decode_cache_tokens=costs.cached,
        peak_memory_bytes=max(peaks, default=None),
        outputs_finite=costs.finite,
    )


def calls_found(calls: Calls) -> Iterator[Found]:
    """Steps and spans; the first pair of each phase is marked as warm-up where there are more."""
    for phase in calls.phases.values():
        several = len(phase.steps) >= 4
        yield from step_rows([_warm_up(s) if several and s.iteration == 0 else s for s in phase.steps])


def _warm_up(step: TimedStep) -> TimedStep:
    return replace(step, is_warmup=True, intervals=[])


def noted(calls: Calls, costs: Costs) -> Found:
    """What is to be known before relying on the run."""
    notes = [*costs.notes, *_notes_of(calls)]
    return of_run(variant_notes=json.dumps([asdict(note) for note in notes]) if notes else None)


def _notes_of(calls: Calls) -> Iterator[Note]:
    if calls.failure is not None:
        yield Note("", f"the watching failed ({calls.failure})", "calls after that are not timed")
    if any(phase.trains for phase in calls.phases.values()):
        yield Note("", "the model was called to be trained", "backward is not profiled")
    for phase in calls.phases.values():
        yield from _notes_of_phase(phase)


def _notes_of_phase(phase: Phase) -> Iterator[Note]:
    if phase.unlike:
        shape = " x ".join(map(str, phase.shape or ()))
        reason = f"{phase.unlike} calls of {phase.name} had another shape than the first, {shape}"
        yield Note("", reason, "they are not timed")
    if phase.beside:
        reason = f"{len(phase.beside)} timed calls of {phase.name} ran beside others in other threads"
        left_out = phase.steps is phase.alone
        done = "they are left out" if left_out else "their times are of calls that share the machine"
        yield Note("", reason, done)
