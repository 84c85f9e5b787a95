"""Live tensor bytes while a step runs: the total, its peak, and what each layer found and left.

Counted are the storages that ops make and that are still referenced, so the figures are exact, the same on
every device, and the same on `meta`. What a kernel takes and gives back inside one op is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle


@dataclass
class LayerMemory:
    """Bytes of cache and activations alive when a layer began and ended, at most meanwhile, and all made."""

    path: str
    enter_bytes: int
    exit_bytes: int = 0
    peak_bytes: int = 0
    allocated_bytes: int = 0


class MemoryTracker(TorchDispatchMode):
    """Follows storages while it is entered; weights and inputs are marked beforehand and not counted."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self._ignored = {tensor.untyped_storage()._cdata for tensor in known}
        self._sizes: dict[int, int] = {}
        self._watching: dict[int, Any] = {}
        self.live_bytes = 0
        self.peak_bytes = 0
        self._made_bytes = 0
        self._open: list[tuple[LayerMemory, int]] = []
        self.layers: list[LayerMemory] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (list, tuple)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor)
        return result

    def _see(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._sizes or address in self._ignored:
            return
        size = storage.nbytes()
        self._sizes[address] = size
        self._watching[address] = weakref.ref(storage, self._gone(address))
        self.live_bytes += size
        self._made_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        for layer, _ in self._open:
            layer.peak_bytes = max(layer.peak_bytes, self.live_bytes)

    def _gone(self, address: int) -> Callable[[Any], None]:
        def forget(_: Any) -> None:
            self._watching.pop(address, None)
            self.live_bytes -= self._sizes.pop(address, 0)

        return forget

    @contextmanager
    def following(self, model: nn.Module) -> Iterator[None]:
        """Notes each layer's memory; when it ends every hook is off again."""
        handles: list[RemovableHandle] = []
        try:
            for path, module in model.named_modules():
                handles.append(module.register_forward_pre_hook(self._enter(path)))
                handles.append(module.register_forward_hook(self._leave))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, path: str) -> Callable[..., None]:
        def enter(*_: Any) -> None:
            layer = LayerMemory(path, enter_bytes=self.live_bytes, peak_bytes=self.live_bytes)
            self._open.append((layer, self._made_bytes))

        return enter

    def _leave(self, *_: Any) -> None:
        layer, made_before = self._open.pop()
        layer.exit_bytes = self.live_bytes
        layer.allocated_bytes = self._made_bytes - made_before
        self.layers.append(layer)
