"""Whether a model fits: its exact memory at any size, traced on `meta`, and the largest size that does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roofleet_agent.engines.base import Session, Step
from roofleet_agent.engines.checkpoints import load_config
from roofleet_agent.measuring.step_memory import MemoryFound, PhaseMemory, memory_of
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing.alike import alike_run_once, folded
from roofleet_agent.workload import ModelRequest, Workload, phases_of
from roofleet_analysis.memory import largest

if TYPE_CHECKING:
    from roofleet_agent.measuring.memory import LayerMemory
    from roofleet_agent.passes.tracing import Traced

_MOST_TOKENS = 2**25
"""Tokens of all sequences beyond which no size is looked at: their ids alone take 256 MiB here."""

_MOST_OPS = 200_000
"""Ops of all steps beyond which a search looks no further: a model that loops over its tokens has many."""


class TooManyOps(Exception):
    """A size has more ops than a search has the patience for."""


class Memory:
    """The memory of one model in one dtype, at any batch, prompt and number of new tokens.

    Of decode it is that of the last step, when the cache is fullest, or of the first where a sliding window
    or logits still hold the whole prompt then. Tensors are counted, exactly as the memory pass of a run
    counts them: what kernels take beside them and what a driver keeps comes on top.
    """

    def __init__(self, request: ModelRequest, dtype: str, traced: Traced) -> None:
        self._request, self._dtype = request, dtype
        self._engine = find_engine(request)
        self._task = traced.session.task
        module = traced.session.module
        first = next(module.parameters(), None)
        self._is_two_sided = bool(getattr(getattr(module, "config", None), "is_encoder_decoder", False))
        self._device = torch.device("meta") if first is None else first.device  # see trace_phases
        self.weight_bytes = traced.weight_bytes
        self.most_ops: int | None = None
        self._known: dict[tuple[str, Workload], MemoryFound] = {}

    def phases(self, workload: Workload) -> dict[str, PhaseMemory]:
        """The memory of each phase of a workload; WorkloadRefused if the model has no positions for it, and
        TooManyOps if it has more ops than `most_ops`."""
        names = phases_of(self._task, workload.new_tokens)
        return {phase: self.of(phase, workload) for phase in names}

    def of(self, phase: str, workload: Workload) -> PhaseMemory:
        """The memory of one phase at its peak."""
        return self._found(phase, workload).phases[phase]

    def layers(self, phase: str, workload: Workload) -> list[LayerMemory]:
        """What each layer found and left in that step."""
        return self._found(phase, workload).layers[phase]

    def _found(self, phase: str, workload: Workload) -> MemoryFound:
        key = (phase, workload)
        if key not in self._known:
            if phase == "decode":
                self._known[key] = self._fullest_decode(workload)
            else:
                self._known[key] = self._follow(workload, phase, 0)[0]
        return self._known[key]

    def _fullest_decode(self, workload: Workload) -> MemoryFound:
        """The last step, after a longer prompt instead of all the steps before it.

        The cache is the same then, but for a sliding window: after a prompt it holds on to all of it and
        lets go with the next token. There one more step comes between, and the first step may hold more than
        the last, as it may where a prompt's logits are kept until the next are there. An encoder's prompt is
        not in the cache of the decoder's tokens, so there every step is played.
        """
        new = workload.new_tokens
        if self._is_two_sided:
            return self._follow(workload, "decode", new - 2)[0]
        for steps in (1, 2):
            shorter = replace(
                workload,
                prompt=None,
                prompt_tokens=workload.prompt_tokens + new - 1 - steps,
                new_tokens=steps + 1,
                logits=workload.logits if steps == new - 1 else "last",
            )
            found, holds_more = self._follow(shorter, "decode", steps - 1)
            if steps == new - 1 or not holds_more:
                break
        last = _after(new - 1 - steps, found, workload)
        if new == 2 or not (holds_more or workload.logits == "all"):
            return last
        first, _ = self._follow(replace(workload, new_tokens=2), "decode", 0)
        return last if last.phases["decode"].peak_bytes > first.phases["decode"].peak_bytes else first

    def _follow(self, workload: Workload, phase: str, index: int) -> tuple[MemoryFound, bool]:
        """The memory of one step, and whether the cache then holds on to more than it shows."""
        return folded(lambda: self._followed(workload, phase, index))

    def _followed(self, workload: Workload, phase: str, index: int) -> tuple[MemoryFound, bool]:
        session = self._engine.load(self._request, self._device, self._dtype, workload)
        with _Counted(self.most_ops), alike_run_once(session.module):
            found = memory_of(session, _steps(session, phase, index))
        holds_more = any(t.untyped_storage().nbytes() > t.numel() * t.element_size() for t in session.cache())
        session.close()
        return found, holds_more


def _after(steps: int, found: MemoryFound, workload: Workload) -> MemoryFound:
    """The memory of the last decode step with the ids of the tokens that so many steps more have generated,
    which are kept beside it until the end."""
    kept = 8 * workload.batch_size * steps
    step = found.phases["decode"]
    step = replace(
        step,
        activation_bytes=step.activation_bytes + kept,
        start_bytes=step.start_bytes + kept,
        peak_step_index=workload.new_tokens - 2,
    )
    layers = [
        replace(
            layer,
            enter_bytes=layer.enter_bytes + kept,
            exit_bytes=layer.exit_bytes + kept,
            peak_bytes=layer.peak_bytes + kept,
        )
        for layer in found.layers["decode"]
    ]
    return MemoryFound({"decode": step}, {"decode": layers})


def largest_sizes(request: ModelRequest, memory: Memory, workload: Workload, capacity: int) -> dict[str, Any]:
    """The largest batch at this prompt and the largest prompt at this batch that `capacity` bytes hold.

    Each is a mapping: `value` (0 if none fits), its `bytes`, the bytes of the next size, what it is
    `limited_by` (memory, positions, or search: no larger size was looked at), and how many were traced.
    """
    generated = max(workload.new_tokens - 1, 0)  # the last token generated is never an input
    tokens = workload.prompt_tokens + generated
    batches = max(_MOST_TOKENS // tokens, 1)
    prompts = max(_MOST_TOKENS // workload.batch_size - generated, 1)
    positions = positions_of(request)
    limit = "search" if positions is None or positions - generated > prompts else "positions"
    if positions is not None:
        prompts = min(prompts, positions - generated)
    return {
        "batch_size": _largest(memory, workload, capacity, "batch_size", batches, "search"),
        "prompt_tokens": _largest(memory, workload, capacity, "prompt_tokens", prompts, limit),
    }


def _largest(
    memory: Memory, workload: Workload, capacity: int, field: str, most: int, limit: str
) -> dict[str, Any]:
    if memory.weight_bytes > capacity:
        return {"value": 0, "bytes": None, "next_bytes": None, "limited_by": "memory", "traced": 0}
    peaks = {phase: found.peak_bytes for phase, found in memory.phases(workload).items()}
    needed: dict[int, dict[str, int]] = {}
    answer, begin = most, getattr(workload, field)
    memory.most_ops = _MOST_OPS
    # The phase with the higher peak gives the answer; the other one is asked whether it fits there too.
    try:
        for phase in sorted(peaks, key=lambda phase: -peaks[phase]):

            def needs(size: int, phase: str = phase) -> int:
                held = memory.of(phase, _sized(workload, field, size)).peak_bytes
                needed.setdefault(size, {})[phase] = held
                return held

            answer = begin = largest(needs, capacity, begin, answer).answer
            if not answer:
                break
    except TooManyOps:
        # so much is known: the largest of which every phase was traced and fits
        whole = [n for n, held in needed.items() if held.keys() == peaks.keys()]
        answer = max((n for n in whole if max(needed[n].values()) <= capacity), default=0)
        own = getattr(workload, field)
        answer = max(answer, own if max(peaks.values()) <= capacity else 0)
        limit, most = "search", answer
    finally:
        memory.most_ops = None
    held = memory.phases(_sized(workload, field, answer)) if answer else {}
    return {
        "value": answer,
        "bytes": max((found.peak_bytes for found in held.values()), default=None),
        "next_bytes": max(needed.get(answer + 1, {}).values(), default=None),
        "limited_by": limit if answer == most else "memory",
        "traced": len(needed),
    }


def _sized(workload: Workload, field: str, size: int) -> Workload:
    if field == "batch_size":
        return replace(workload, batch_size=size)
    return replace(workload, prompt_tokens=size, prompt=None)


def positions_of(request: ModelRequest) -> int | None:
    """Positions the model has; None where its configuration names no limit, as a module has none."""
    if request.origin == "module":
        return None
    most = getattr(load_config(request).get_text_config(), "max_position_embeddings", None)
    return most if isinstance(most, int) else None


def _steps(session: Session, phase: str, index: int) -> Iterator[Step]:
    """The steps of an iteration up to one; those before it under a name of their own."""
    for step in session.iteration():
        wanted = step.phase == phase and step.step_index == index
        yield step if wanted else replace(step, phase="before")
        if wanted:
            return


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Raises TooManyOps at the first op beyond a number of them; without one it lets all pass."""

    def __init__(self, most: int | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left = most

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise TooManyOps
        return func(*args, **(kwargs or {}))
