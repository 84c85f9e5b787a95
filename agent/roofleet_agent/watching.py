"""Watches a model in the user's own code: their calls are timed, and the first of each kind is played again.

Calls are timed with layers and bare in turns. What a call costs is found by playing copies of its inputs
through the model twice more, once for its ops and once for its memory, after which the model's attributes,
buffers and the random generators are as they were.
"""

from __future__ import annotations

import copy
import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from roofleet_agent.conditions import Conditions
from roofleet_agent.devices.base import Device
from roofleet_agent.engines.base import Step
from roofleet_agent.engines.transformers import held_by
from roofleet_agent.inventory import device_id, host_id
from roofleet_agent.measuring.allocator import process_peak_bytes
from roofleet_agent.measuring.calibration import calibrate
from roofleet_agent.measuring.clocks import clock_for
from roofleet_agent.measuring.layer_timer import LayerTimer
from roofleet_agent.measuring.passes import MemoryFound, TimedStep, is_finite, memory_of
from roofleet_agent.registry import discover_devices
from roofleet_agent.rows import Sink, table_of
from roofleet_agent.run import StatedCost
from roofleet_agent.run_rows import op_rows, phase_memory_row, span_rows, step_rows
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import TraceResult, layers_of, trace
from roofleet_agent.tracing.operands import dtype_name

MOST_CALLS = 400
"""Calls of each phase that are timed; an evaluation over a whole dataset goes on unwatched after them."""


@dataclass
class _Phase:
    """What is known of one kind of call."""

    traced: TraceResult | None = None
    memory: MemoryFound | None = None
    finite: bool | None = None
    tokens: tuple[int, int] = (1, 1)
    calls: int = 0
    steps: list[TimedStep] = field(default_factory=list)


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
        self._timer = LayerTimer(model, self._clock, ("",) if compiled else ())
        self._began_ns = time.perf_counter_ns()
        self._started_at = datetime.now(UTC)
        self._conditions = Conditions(self.device)
        self._armed = ExitStack()
        self._playing = False
        self._timed = True
        self._call: tuple[str, int, int, int] | None = None  # phase, tokens, cached tokens, start in ns
        self._generations = 0
        self._decoded = 0

    # -- the user's calls

    def start(self) -> None:
        """Watches the calls from now on."""
        self._arm(timed=True)

    def stop(self) -> None:
        """Takes every hook off again."""
        self._armed.close()

    def _arm(self, *, timed: bool) -> None:
        """Makes ready for the next call; our hooks are the outermost: the others' time is the call's."""
        self._armed.close()
        self._timed = timed
        if timed:
            self._armed.enter_context(self._timer.timing())
        handles: tuple[RemovableHandle, ...] = (
            self.model.register_forward_pre_hook(self._before, prepend=True, with_kwargs=True),
            self.model.register_forward_hook(self._after, always_call=True),
        )
        for handle in handles:
            self._armed.callback(handle.remove)

    def _before(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        if self._playing:
            return
        phase, cache = _phase_of(args, kwargs)
        known = self.phases.setdefault(phase, _Phase())
        batch, tokens = _shape(args, kwargs)
        if known.traced is None:
            known.tokens = (batch, tokens)
            self._play(known, phase, args, kwargs)
        cached = _length(cache)
        self._timer.begin()
        self._clock.synchronize()
        self._call = (phase, tokens, cached, time.perf_counter_ns())

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if self._playing or self._call is None:
            return
        self._clock.synchronize()
        phase, tokens, cached, begin = self._call
        duration = time.perf_counter_ns() - begin
        self._call = None
        intervals = self._timer.intervals() if self._timed and output is not None else []
        if output is not None:  # None after an error in the call, which is the user's to see
            self._keep(phase, tokens, cached, begin - self._began_ns, duration, intervals)
        more = self.phases[phase].calls < MOST_CALLS
        self._arm(timed=more and not self._timed)

    def _keep(
        self, phase: str, tokens: int, cached: int, start: int, duration: int, intervals: list[Any]
    ) -> None:
        known = self.phases[phase]
        number, known.calls = known.calls, known.calls + 1
        if phase == "decode":
            number, self._decoded = self._decoded, self._decoded + 1
        else:
            self._generations, self._decoded = self._generations + 1, 0
        if known.calls > MOST_CALLS:
            return
        # A timed call and the bare one after it are a pair, told under one number.
        iteration, index = (self._generations, number // 2) if phase == "decode" else (number // 2, 0)
        step = Step(phase, index, tokens, cached, _nothing)
        kind, group = ("timed", 0) if self._timed else ("bare", None)
        known.steps.append(TimedStep(step, kind, iteration, False, start, duration, intervals, group))

    def _play(self, known: _Phase, phase: str, args: Any, kwargs: Any) -> None:
        """Plays a call again on copies of its inputs, for its ops and for its memory."""
        self._playing = True
        try:
            with _as_it_was(self.model):
                player = _Player(self.model, args, kwargs)
                known.traced = trace(self.model, player.call, cache=player.cache)
                known.finite = is_finite(player.output)
                player = _Player(self.model, args, kwargs)
                known.memory = memory_of(player, [Step(phase, 0, 1, 0, player.call)])
        finally:
            self._playing = False

    # -- the rows

    def write(self, sink: Sink, status: str, error: str | None, stated_cost: StatedCost) -> None:
        """Writes the run with everything that was seen."""

        def put(table: str, rows: list[dict[str, Any]]) -> None:
            sink.write(table, table_of(table, rows))

        model = self._model_row()
        put("models", [model])
        put("layers", [{"run_id": self.run_id, **asdict(layer)} for layer in layers_of(self.model)])
        peaks = []
        for phase, known in self.phases.items():
            if known.traced is None or known.memory is None:
                continue
            put("ops", op_rows(self.run_id, phase, known.traced, stated_cost))
            put(
                "layer_edges",
                [{"run_id": self.run_id, "phase": phase, **asdict(edge)} for edge in known.traced.edges],
            )
            memory = known.memory.phases[phase]
            peaks.append(memory.peak_bytes)
            put("phase_memory", [phase_memory_row(self.run_id, memory, None, None)])
            last = {layer.path: layer for layer in known.memory.layers[phase]}
            put(
                "layer_memory",
                [{"run_id": self.run_id, "phase": phase, **asdict(layer)} for layer in last.values()],
            )
            steps = list(_warmed_up(known.steps))
            sink.write("steps", step_rows(self.run_id, steps))
            spans = span_rows(self.run_id, [step for step in steps if not step.is_warmup])
            if spans.num_rows:
                sink.write("spans", spans)
        put("runs", [self._run_row(model["model_id"], status, error, max(peaks, default=None))])

    def _model_row(self) -> dict[str, Any]:
        ask = getattr(getattr(self.model, "config", None), "to_json_string", None)
        config = ask() if callable(ask) else None
        parameters = sum(p.numel() for p in self.model.parameters())
        architecture = type(self.model).__name__
        identity = "\n".join((self.name, config or f"{architecture} {parameters}"))
        return {
            "model_id": hashlib.sha256(identity.encode()).hexdigest()[:16],
            "name": self.name,
            "origin": "module",
            "architecture": architecture,
            "task": "generate" if {"prefill", "decode"} & set(self.phases) else "encode",
            "parameters": parameters,
            "config": config,
            "source": None,
        }

    def _run_row(self, model_id: str, status: str, error: str | None, peak: int | None) -> dict[str, Any]:
        first = self.phases.get("prefill") or self.phases.get("forward") or next(iter(self.phases.values()))
        decode = self.phases.get("decode")
        generations = max(self._generations, 1)
        floating = next((p for p in self.model.parameters() if p.is_floating_point()), None)
        finite = [known.finite for known in self.phases.values() if known.finite is not None]
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
            "batch_size": first.tokens[0],
            "prompt_tokens": first.tokens[1],
            "new_tokens": 0 if decode is None else decode.calls // generations + 1,
            "logits": "all",
            "iterations": generations,
            "warmup": 0,
            "parameter_bytes": stored_bytes(self.model),
            "peak_memory_bytes": peak,
            "peak_memory_source": None if peak is None else "live tensors",
            "process_peak_bytes": process_peak_bytes(),
            "threads": torch.get_num_threads() if self._torch_device.type == "cpu" else None,
            "torch_version": torch.__version__,
            "outputs_finite": all(finite) if finite else None,
            "timer_inside_ns": self._cost.inside_ns if self._cost else None,
            "timer_outside_ns": self._cost.outside_ns if self._cost else None,
            "quality_unknown": "measured in the user's own code",
            **self._conditions.row(),
        }


class _Player:
    """One call that can be made on copies of its inputs; what memory and trace passes need of a session."""

    def __init__(self, model: nn.Module, args: Any, kwargs: Any) -> None:
        self.module = model
        self._args, self._kwargs = _copied(args), _copied(kwargs)
        self.output: Any = None

    def call(self) -> None:
        self.output = self.module(*self._args, **self._kwargs)

    def cache(self) -> Iterable[torch.Tensor]:
        _, cache = _phase_of(self._args, self._kwargs)
        for layer in getattr(cache, "layers", ()):
            yield from held_by(layer)


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts attributes, buffers and random generators back when it ends."""
    attributes = [(module, dict(module.__dict__)) for module in model.modules()]
    tables: list[tuple[dict[str, Any], dict[str, Any]]] = [
        (table, dict(table))
        for module in model.modules()
        for table in (module._buffers, module._parameters, module._modules)
    ]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {p.device for p in model.parameters() if p.device.type not in ("cpu", "meta")}
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.random.fork_rng([device], device_type=device.type))
        stack.enter_context(torch.random.fork_rng([]))
        try:
            yield
        finally:
            for module, before in attributes:
                module.__dict__.clear()
                module.__dict__.update(before)
            for table, entries in tables:
                table.clear()
                table.update(entries)
            with torch.no_grad():
                for buffer, value in buffers:
                    if not buffer.is_inference():
                        buffer.copy_(value)


def _copied(tree: Any) -> Any:
    """The same arguments with tensors and caches of their own; what cannot be copied is shared."""
    if isinstance(tree, torch.Tensor):
        return tree.detach().clone()
    if isinstance(tree, tuple) and not hasattr(tree, "_fields"):
        return tuple(_copied(item) for item in tree)
    if isinstance(tree, list):
        return [_copied(item) for item in tree]
    if type(tree) is dict:
        return {key: _copied(value) for key, value in tree.items()}
    try:
        return copy.deepcopy(tree)
    except Exception:  # an object of the user's, with reasons of its own
        return tree


def _phase_of(args: Any, kwargs: Any) -> tuple[str, Any]:
    """Which phase a call is, by the cache it is given, and that cache."""
    cache = kwargs.get("past_key_values", kwargs.get("cache_params"))
    if cache is None or not hasattr(cache, "layers"):
        return "forward", None
    return ("decode" if _length(cache) else "prefill"), cache


def _length(cache: Any) -> int:
    ask = getattr(cache, "get_seq_length", None)
    return int(ask()) if callable(ask) else 0


def _shape(args: Any, kwargs: Any) -> tuple[int, int]:
    """Batch and positions of a call, from the first tensor it is given; 1 where it has no such dimension."""
    named = [kwargs[name] for name in ("input_ids", "inputs_embeds") if kwargs.get(name) is not None]
    for value in (*named, *args, *kwargs.values()):
        if isinstance(value, torch.Tensor) and value.dim():
            return int(value.shape[0]), int(value.shape[1]) if value.dim() > 1 else 1
    return 1, 1


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
