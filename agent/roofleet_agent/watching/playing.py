"""Plays a call of a model again, on copies of its inputs: once for its ops, once for its memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from roofleet_agent.engines.base import Step
from roofleet_agent.engines.transformers import held_by
from roofleet_agent.measuring.finite import is_finite
from roofleet_agent.measuring.step_memory import MemoryFound, memory_of
from roofleet_agent.tracing import TraceResult, trace
from roofleet_agent.watching.arguments import layers_of_cache, phase_of
from roofleet_agent.watching.copying import Unplayable, copied, own_tensor, tensors_of
from roofleet_agent.watching.guarding import OnlyOwn, Refused
from roofleet_agent.watching.keeping import apart
from roofleet_agent.watching.quietly import quietly


class Sample:
    """One call as it was made: copies of its inputs, in the host's memory, and what it was made under."""

    def __init__(self, model: nn.Module, entry: str, args: Any, kwargs: Any, cached: int) -> None:
        """`entry` is the path of the module that was called, `cached` the tokens in its cache. Unplayable if
        the inputs cannot be copied."""
        self.entry, self.cached = entry, cached
        self.training = [module.training for module in model.modules()]
        self._homes: dict[int, torch.device] = {}
        self._arguments = copied((args, kwargs), self._to_host, {})
        devices = {"cpu", *(tensor.device.type for tensor in model.parameters())} - {"meta"}
        self._autocast = {
            device: torch.get_autocast_dtype(device)
            for device in devices
            if torch.is_autocast_enabled(device)
        }

    def _to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, nn.Parameter):
            return tensor
        own = own_tensor(tensor, None if tensor.is_meta else torch.device("cpu"))
        if own.device != tensor.device:
            self._homes[id(own)] = tensor.device
        return own

    def arguments(self) -> tuple[Any, Any]:
        """Inputs to play one call with."""

        def home(tensor: torch.Tensor) -> torch.Tensor:
            if isinstance(tensor, nn.Parameter):
                return tensor
            return own_tensor(tensor, self._homes.get(id(tensor)))

        args, kwargs = copied(self._arguments, home, {})
        return args, kwargs

    @contextmanager
    def autocasting(self) -> Iterator[None]:
        """Autocasts as the call did."""
        with ExitStack() as stack:
            for device, dtype in self._autocast.items():
                stack.enter_context(torch.autocast(device, dtype=dtype, cache_enabled=False))
            yield


@dataclass(frozen=True)
class Played:
    """What one call executes and holds, whether what it gave out is finite, and what was left out."""

    traced: TraceResult
    memory: MemoryFound
    finite: bool | None
    without_hooks: list[str]


class _Player:
    """A sample that can be called once; what trace and memory passes need of a session."""

    def __init__(self, model: nn.Module, sample: Sample) -> None:
        self.module = model
        self._called = dict(model.named_modules())[sample.entry]  # scripted ones know no get_submodule
        self.args, self.kwargs = sample.arguments()
        self.output: Any = None

    def call(self) -> None:
        """Makes the call."""
        self.output = self._called(*self.args, **self.kwargs)

    def cache(self) -> Iterable[torch.Tensor]:
        """The tensors of the key-value cache it is given, as it is now."""
        _, cache = phase_of(self.kwargs)
        for layer in layers_of_cache(cache):
            yield from held_by(layer)


def play(model: nn.Module, sample: Sample, phase: str) -> Played:
    """Plays a call twice. Unplayable if it would write to what is the user's, or fails."""
    stays = why_not(model)
    if stays is not None:
        raise Unplayable(stays)
    try:
        return _played(model, sample, phase, parameters=False)
    except Refused as refused:
        if not _is_parameter(model, refused.tensor):
            raise Unplayable(_REFUSED.format(refused)) from None
    try:
        return _played(model, sample, phase, parameters=True)
    except Refused as refused:
        raise Unplayable(_REFUSED.format(refused)) from None


_REFUSED = "it writes to tensors that cannot be exchanged for copies ({})"


def why_not(model: nn.Module) -> str | None:
    """Why no call of a model can be played again whatever it is, if so."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        return "other processes of the group would have to play along"
    kinds = {kind.__name__ for module in model.modules() for kind in type(module).__mro__}
    if kinds & {"FullyShardedDataParallel", "FSDPModule"}:
        return "FSDP keeps state of its parameters that cannot be put back"
    return None


def _played(model: nn.Module, sample: Sample, phase: str, *, parameters: bool) -> Played:
    experts = getattr(getattr(model, "config", None), "num_experts_per_tok", None)
    finite = None
    for counting in ("ops", "memory"):
        with ExitStack() as stack:
            copies = stack.enter_context(apart(model, sample.training, parameters=parameters))
            without = stack.enter_context(quietly(model))
            stack.enter_context(sample.autocasting())
            player = _Player(model, sample)
            guard = stack.enter_context(OnlyOwn([*copies, *tensors_of((player.args, player.kwargs))]))
            try:
                if counting == "ops":
                    traced = trace(model, player.call, cache=player.cache, experts_per_token=experts)
                    finite = is_finite(player.output)
                else:
                    memory = memory_of(player, [Step(phase, 0, 1, 0, player.call)])
            except Exception:
                if guard.refused is not None:  # scripted code makes an error of its own of it
                    raise guard.refused from None
                raise
    return Played(traced, memory, finite, without)


def _is_parameter(model: nn.Module, tensor: torch.Tensor) -> bool:
    address = tensor.untyped_storage()._cdata
    return any(
        parameter.layout == torch.strided and parameter.untyped_storage()._cdata == address
        for parameter in model.parameters()
    )
