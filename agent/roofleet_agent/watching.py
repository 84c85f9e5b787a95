"""Watches a model in the user's own code: their calls are timed, and the first of each kind is played again.

Calls are timed with layers and bare in turns. What a call costs is found by playing copies of its inputs
through the model twice more, once for its ops and once for its memory, after which the model's attributes,
buffers and the random generators are as they were.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from roofleet_agent.conditions import Conditions
from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Step
from roofleet_agent.inventory import device_id, host_id
from roofleet_agent.measuring.allocator import process_peak_bytes
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.passes import MemoryFound, TimedStep, all_finite, is_finite, memory_of
from roofleet_agent.registry import discover_devices
from roofleet_agent.replaying import Player, as_it_was, cached_tokens, phase_of, shape_of
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run import StatedCost
from roofleet_agent.run_rows import edge_rows, model_row, op_rows, phase_memory_row, span_rows, step_rows
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import TraceResult, layers_of, trace
from roofleet_agent.tracing.operands import dtype_name
from roofleet_agent.variants import Note

PATIENCE_S = 60.0
"""How long another thread's call waits at most while the first is played again."""
MOST_CALLS = 400
"""Calls of each phase that are timed; an evaluation over a whole dataset goes on untimed after them."""


@dataclass
class _Phase:
    """What is known of one kind of call: what the first of them cost, and the times of those like it."""

    shape: tuple[int, int]
    cached: int
    traced: TraceResult | None = None
    memory: MemoryFound | None = None
    finite: bool | None = None
    calls: int = 0
    unlike: int = 0
    steps: list[TimedStep] = field(default_factory=list)


@dataclass(frozen=True)
class _Call:
    """A call under way: whose thread it is, timed with its layers or bare, and when it began, by
    `time.perf_counter_ns`; `again` plays the first of a phase once more."""

    phase: str
    cached: int
    timed: bool
    thread: int
    begin_ns: int
    again: Callable[[], None] | None


class Watch:
    """Watches one model between `start` and `stop`, then `write` gives what was seen to a sink."""

    def __init__(self, model: nn.Module, name: str) -> None:
        self.run_id = str(uuid.uuid4())
        self.model, self.name = model, name
        self.device = _device_of(model)
        self.phases: dict[str, _Phase] = {}
        self._torch_device = torch.device(self.device.torch_name)
        self._clock = clock_for(self._torch_device)
        self._cost = calibrate(self._clock)
        compiled = hasattr(model, "_orig_mod") or getattr(model, "_compiled_call_impl", None) is not None
        self._opaque = frozenset([""] if compiled else [])
        self._timer = LayerTimer(model, self._clock, self._opaque)
        self._began_ns = time.perf_counter_ns()
        self._started_at = datetime.now(UTC)
        on_cpu = self._torch_device.type == "cpu"
        self._conditions = Conditions(self.device, torch.get_num_threads() if on_cpu else 1)
        self._hooked: list[RemovableHandle] = []
        self._timing = ExitStack()
        self._playing = False
        self._call: _Call | None = None
        self._player = 0
        self._free = threading.Condition()
        self._inside = 0
        self._succeeded = False
        self._disturbed = False
        self._beside = 0
        self._generations = 0
        self._notes: list[Note] = []

    # -- the user's calls

    def start(self) -> None:
        """Watches the calls from now on; what other hooks of the model do is part of its calls."""
        self._hooked = [
            self.model.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
            self.model.register_forward_hook(self._after_success),
            self.model.register_forward_hook(self._after, always_call=True),
        ]

    def stop(self) -> None:
        """Takes every hook off again."""
        self._timing.close()
        while self._hooked:
            self._hooked.pop().remove()

    def _before(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if self._is_player():
            return
        with self._free:  # another thread's first call is being played: its hooks are for that thread alone
            self._free.wait_for(lambda: not self._playing, PATIENCE_S)
            self._inside += 1
            if self._inside > 1:  # two calls at once: neither's times are its own
                self._disturbed = True
                self._beside += 1
                return
        self._timing.close()
        self._call = None
        self._succeeded = self._disturbed = False
        phase, cache = phase_of(args, kwargs)
        cached = cached_tokens(cache)
        known = self.phases.get(phase)
        again = None
        if known is None:
            known = self.phases[phase] = _Phase(shape_of(args, kwargs), cached)
            # Played after the call itself: what the model keeps from its first call is then the user's own.
            players = [Player(self.model, args, kwargs) for _ in range(2)]
            again = partial(self._play, known, phase, players)
        if phase != "decode":
            self._generations += 1
        if shape_of(args, kwargs) != known.shape:
            known.unlike += 1
            return
        if known.calls >= MOST_CALLS:
            return
        timed = known.calls % 2 == 0
        if timed:
            self._timing.enter_context(self._timer.timing(root=False))
        self._clock.synchronize()
        if timed:
            self._timer.begin()
        self._call = _Call(phase, cached, timed, threading.get_ident(), time.perf_counter_ns(), again)
        if timed:
            self._timer.enter()

    def _is_player(self) -> bool:
        return self._playing and self._player == threading.get_ident()

    def _after_success(self, model: nn.Module, args: Any, output: Any) -> None:
        call = self._call
        if not self._is_player() and call is not None and call.thread == threading.get_ident():
            self._succeeded = True  # not reached after an error, which is the user's to see

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._is_player():
            return
        call = self._call
        if call is None or call.thread != threading.get_ident():
            with self._free:
                self._inside -= 1
            return
        self._call = None
        try:
            self._ended(call)
        finally:
            with self._free:
                self._inside -= 1

    def _ended(self, call: _Call) -> None:
        if call.timed:
            self._timer.leave()
        self._clock.synchronize()
        duration = time.perf_counter_ns() - call.begin_ns
        self._timing.close()
        if not self._succeeded:
            if call.again is not None:
                del self.phases[call.phase]  # the next that succeeds is the first
            return
        known = self.phases[call.phase]
        if self._disturbed:
            if call.again is not None:
                del self.phases[call.phase]
            return
        intervals = self._timer.intervals() if call.timed else []
        if call.again is not None:
            call.again()
        # A timed call and the bare one after it are a pair, told under one number.
        number, known.calls = known.calls // 2, known.calls + 1
        step = Step(call.phase, 0, known.shape[1], call.cached, _nothing)
        start = call.begin_ns - self._began_ns
        kind, group = ("timed", 0) if call.timed else ("bare", None)
        known.steps.append(TimedStep(step, kind, number, False, start, duration, intervals, group))

    def _play(self, known: _Phase, phase: str, players: list[Player]) -> None:
        """Plays a call again on copies of its inputs, for its ops and for its memory. What cannot be played
        is told, and timed all the same."""
        versions = [parameter._version for parameter in self.model.parameters()]
        experts = getattr(getattr(self.model, "config", None), "num_experts_per_tok", None)
        self._player, self._playing = threading.get_ident(), True
        try:
            with as_it_was(self.model):
                player, other = players
                known.traced = trace(self.model, player.call, cache=player.cache, experts_per_token=experts)
                known.finite = is_finite(player.output)
                known.memory = memory_of(other, [Step(phase, 0, 1, 0, other.call)])
        except Exception as error:  # whatever the user's model does, its own call must go on
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self._notes.append(Note("", reason, f"the ops and memory of {phase} are not known"))
        finally:
            with self._free:
                self._playing = False
                self._free.notify_all()
        if versions != [parameter._version for parameter in self.model.parameters()]:
            reason = f"{phase} changes parameters, which are not copied to be put back"
            self._notes.append(Note("", reason, "they were changed twice more to count it"))

    # -- the rows

    def write(self, sink: Sink, status: str, error: str | None, stated_cost: StatedCost) -> None:
        """Writes the run with everything that was seen."""

        def put(table: str, rows: list[dict[str, Any]]) -> None:
            sink.write(table, table_of(table, rows))

        ask = getattr(getattr(self.model, "config", None), "to_json_string", None)
        model = model_row(
            self.name,
            "module",
            self.model,
            "generate" if {"prefill", "decode"} & set(self.phases) else "encode",
            sum(p.numel() for p in self.model.parameters()),
            ask() if callable(ask) else None,
        )
        put("models", [model])
        put("layers", [{"run_id": self.run_id, **asdict(layer)} for layer in layers_of(self.model)])
        peaks = []
        for phase, known in self.phases.items():
            if known.traced is not None:
                put("ops", op_rows(self.run_id, phase, known.traced, stated_cost, self._opaque))
                put("layer_edges", edge_rows(self.run_id, phase, known.traced, self._opaque))
            if known.memory is not None:
                memory = known.memory.phases[phase]
                peaks.append(memory.peak_bytes)
                put("phase_memory", [phase_memory_row(self.run_id, memory, None, None)])
                layers = known.memory.layers[phase]
                put(
                    "layer_memory",
                    [{"run_id": self.run_id, "phase": phase, **asdict(layer)} for layer in layers],
                )
            if known.unlike:
                batch, tokens = known.shape
                reason = (
                    f"{known.unlike} calls of {phase} had another shape than the first, {batch} x {tokens}"
                )
                self._notes.append(Note("", reason, "they are not timed"))
            steps = list(_warmed_up(known.steps))
            sink.write("steps", step_rows(self.run_id, steps))
            spans = span_rows(self.run_id, [step for step in steps if not step.is_warmup])
            if spans.num_rows:
                sink.write("spans", spans)
        if self._beside:
            reason = f"{self._beside} calls ran beside others in other threads"
            self._notes.append(Note("", reason, "neither they nor those others are timed"))
        put("runs", [self._run_row(model["model_id"], status, error, max(peaks, default=None))])

    def _run_row(self, model_id: str, status: str, error: str | None, peak: int | None) -> dict[str, Any]:
        first = self.phases.get("prefill") or self.phases.get("forward") or next(iter(self.phases.values()))
        decode = self.phases.get("decode")
        generations = max(self._generations, 1)
        floating = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        config = getattr(self.model, "config", None)
        return {
            "run_id": self.run_id,
            "host_id": host_id(),
            "device_id": device_id(self.device),
            "model_id": model_id,
            "status": status,
            "error": error,
            "started_at": self._started_at,
            "finished_at": datetime.now(UTC),
            "dtype": "fp32" if floating is None else dtype_name(floating),
            "variant": "base",
            "weights": "pretrained",
            "attention": getattr(config, "_attn_implementation", None),
            "engine": "watch",
            "batch_size": first.shape[0],
            "prompt_tokens": first.shape[1],
            "new_tokens": int(decode is not None or "prefill" in self.phases)
            + (0 if decode is None else (decode.calls + decode.unlike) // generations),
            "decode_cache_tokens": None if decode is None else decode.cached,
            "variant_notes": json.dumps([asdict(note) for note in self._notes]) if self._notes else None,
            "logits": "all",
            "iterations": generations,
            "warmup": 0,
            "parameter_bytes": stored_bytes(self.model),
            "peak_memory_bytes": peak,
            "peak_memory_source": None if peak is None else "live tensors",
            "process_peak_bytes": process_peak_bytes(),
            "threads": torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            "torch_version": torch.__version__,
            "outputs_finite": all_finite(known.finite for known in self.phases.values()),
            "timer_inside_ns": self._cost.inside_ns if self._cost else None,
            "timer_outside_ns": self._cost.outside_ns if self._cost else None,
            "quality_unknown": "measured in the user's own code",
            **self._conditions.row(),
        }


def _warmed_up(steps: list[TimedStep]) -> Iterator[TimedStep]:
    """The steps with the first pair marked as warm-up, where there are more."""
    for number, step in enumerate(steps):
        yield replace(step, is_warmup=number < 2 and len(steps) >= 4)


def _device_of(model: nn.Module) -> Device:
    places = [p.device for p in model.parameters() if p.device.type != "meta"]
    found = discover_devices()
    for device in found[1:] if places else ():
        if torch.device(device.torch_name) == places[0]:
            return device
    return found[0]


def _nothing() -> None:
    return None
