"""Live tensor bytes while a step runs: the total, its peak and where that was, and each layer's share.

Counted are the storages that ops make and that are still referenced, so the figures are exact, the same on
every device, and the same on `meta`. What a kernel takes and gives back inside one op is not seen here: see
allocator.py.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from roofleet_agent.calling import Call, around
from roofleet_agent.names import op_name
from roofleet_agent.storage import plain_tensors
from roofleet_agent.tracing.operands import laid_out_as_fused
from roofleet_agent.tracing.tape import Event, followers


@dataclass
class LayerMemory:
    """Bytes of cache and activations alive when a layer began and ended, at most meanwhile, and all made."""

    path: str
    enter_bytes: int
    exit_bytes: int = 0
    peak_bytes: int = 0
    allocated_bytes: int = 0


@dataclass(frozen=True)
class Peak:
    """The most alive at once beside the weights: bytes in all, of them cache, and the layer and op then."""

    bytes: int = 0
    kv_bytes: int = 0
    path: str | None = None
    op: str | None = None


def over_calls(layers: Iterable[LayerMemory]) -> list[LayerMemory]:
    """One entry a layer: begun at its first call, ended at its last, the most of all, and all made in all."""
    found: dict[str, LayerMemory] = {}
    for layer in layers:
        known = found.get(layer.path)
        if known is None:
            found[layer.path] = replace(layer)
            continue
        known.exit_bytes = layer.exit_bytes
        known.peak_bytes = max(known.peak_bytes, layer.peak_bytes)
        known.allocated_bytes += layer.allocated_bytes
    return list(found.values())


class MemoryTracker(TorchDispatchMode):
    """Follows storages while it is entered; weights and inputs are marked beforehand and not counted."""

    supports_higher_order_operators = True

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._ignored = {
            plain.untyped_storage()._cdata for tensor in known for plain in plain_tensors(tensor)
        }
        self._alive: dict[int, int] = {}  # address of a storage -> its number
        self._sizes: list[int] = []  # by number
        self._watching: dict[int, Any] = {}
        self._kv: set[int] = set()
        self.live_bytes = 0
        self.peak_bytes = 0
        self._at_peak: tuple[int, ...] = ()
        self._peak_place: tuple[str | None, str | None] = (None, None)
        self._made_bytes = 0
        self._open: list[LayerMemory] = []
        self.layers: list[LayerMemory] = []
        self._tape: list[Event] | None = None
        self._paused = False

    def __enter__(self) -> MemoryTracker:
        followers.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        followers.remove(self)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and result.is_meta:
            result = laid_out_as_fused(func, result)  # else what follows would copy it, and only there
        if self._paused:
            return result
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, torch.Tensor):
                for plain in plain_tensors(tensor):
                    self._see(plain, func, args)
        return result

    def _see(self, tensor: torch.Tensor, func: Any, args: Sequence[Any] = ()) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._alive or address in self._ignored:
            return
        known = _was_there(tensor, func, args)
        if known is None:
            self._happen(Event("made", (address,), rest=(storage.nbytes(), func), begins="made"))
        else:  # its address may be given anew one day
            self._happen(Event("ignored", (address,), begins="made" if known == "moved" else "met"))
        self.adopt(storage)

    def _happen(self, event: Event) -> None:
        if self._tape is not None:
            self._tape.append(event)
        self.happened(event)

    def happened(self, event: Event) -> None:
        """See Follower.happened."""
        match event:
            case Event("made", (address,), rest=(size, func)):
                self._made(address, size, func)
            case Event("ignored", (address,)):
                self._ignored.add(address)
            case Event("gone", (address,)):
                self._watching.pop(address, None)
                self._ignored.discard(address)
                number = self._alive.pop(address, None)
                self.live_bytes -= 0 if number is None else self._sizes[number]
            case Event("began", path=str(path)):
                # until it ends, all made is what was made before
                self._open.append(LayerMemory(path, self.live_bytes, 0, self.live_bytes, self._made_bytes))
            case Event("ended"):
                layer = self._open.pop()
                layer.exit_bytes = self.live_bytes
                layer.allocated_bytes = self._made_bytes - layer.allocated_bytes
                self.layers.append(layer)

    def _made(self, address: int, size: int, func: Any) -> None:
        self._alive[address] = len(self._sizes)
        self._sizes.append(size)
        self.live_bytes += size
        self._made_bytes += size
        if self.live_bytes > self.peak_bytes:
            self._note_peak(func)
        for layer in self._open:
            layer.peak_bytes = max(layer.peak_bytes, self.live_bytes)

    def adopt(self, storage: torch.UntypedStorage) -> None:
        """See Follower.adopt."""
        address = storage._cdata
        self._watching[address] = weakref.ref(
            storage, lambda _: self._happen(Event("gone", (address,), ends=True))
        )

    def begin_tape(self, given: Container[int]) -> None:
        """See Follower.begin_tape."""
        self._tape = []

    def end_tape(self) -> tuple[list[Event], set[int]]:
        """See Follower.end_tape."""
        tape, self._tape = self._tape or [], None
        alive: set[int] = set()
        for event in tape:
            if event.begins == "made":
                alive.add(event.storages[0])
            elif event.ends:
                alive.discard(event.storages[0])
        return tape, alive

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See Follower.paused."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _note_peak(self, func: Any) -> None:
        self.peak_bytes = self.live_bytes
        self._at_peak = tuple(self._alive.values())
        path = self._open[-1].path if self._open else None
        self._peak_place = (path, None if func is None else op_name(func))

    def begin_step(self, cache: Iterable[torch.Tensor]) -> None:
        """A new step: its peak starts at what is alive now, of which `cache` is the key-value cache."""
        self.layers = []
        self.mark_cache(cache)
        self._note_peak(None)

    def mark_cache(self, cache: Iterable[torch.Tensor]) -> None:
        """Says which tensors are the key-value cache now; those made before the tracker was entered join."""
        for tensor in cache:
            for plain in plain_tensors(tensor):
                self._see(plain, None)
                number = self._alive.get(plain.untyped_storage()._cdata)
                if number is not None:
                    self._kv.add(number)

    def peak(self) -> Peak:
        """The peak since the step began."""
        kv = sum(self._sizes[number] for number in self._at_peak if number in self._kv)
        return Peak(self.peak_bytes, kv, *self._peak_place)

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Notes each layer's memory; when it ends nothing is left on them."""
        with around((module, self._noting(path)) for path, module in model.named_modules()):
            yield

    def _noting(self, path: str) -> Callable[[Call], Call]:
        def noting(call: Call) -> Call:
            def noted(*args: Any, **kwargs: Any) -> Any:
                self._happen(Event("began", path=path))
                try:
                    return call(*args, **kwargs)
                finally:
                    self._happen(Event("ended"))

            return noted

        return noting


def _was_there(tensor: torch.Tensor, func: Any, args: Sequence[Any]) -> str | None:
    """Whether an op only gave another view of a tensor made before, such as the prompt (`view`); on `meta`
    also whether it moved a number there from the host, where a run on the CPU has it in place (`moved`)."""
    first = args[0] if args else None
    address = tensor.untyped_storage()._cdata
    given = (plain for a in args if isinstance(a, torch.Tensor) for plain in plain_tensors(a))
    if any(plain.untyped_storage()._cdata == address for plain in given):
        return "view"
    moved = isinstance(first, torch.Tensor) and first.dim() == tensor.dim() == 0 and tensor.is_meta
    return "moved" if moved and op_name(func) == "aten.to" else None
