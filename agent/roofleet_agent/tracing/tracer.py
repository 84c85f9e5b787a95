"""Records every op of one step with its layer, shapes, dtypes and what its tensors are.

Under `torch.inference_mode` a dispatch mode sees composite ops whole (`aten.linear`,
`aten.scaled_dot_product_attention`), so the trace does not depend on how a device implements them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.hooks import RemovableHandle

DTYPE_NAMES = {
    torch.float64: "fp64",
    torch.float32: "fp32",
    torch.float16: "fp16",
    torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8",
    torch.float8_e5m2: "fp8",
    torch.int8: "int8",
    torch.uint8: "uint8",
    torch.int16: "int16",
    torch.int32: "int32",
    torch.int64: "int64",
    torch.bool: "bool",
}


_BOOKKEEPING = frozenset({"aten::lift_fresh", "aten::detach", "aten::detach_", "aten::alias"})
"""Torch's own housekeeping, which differs between devices and neither computes nor moves anything."""


@dataclass(frozen=True)
class TracedTensor:
    """One operand: `role` is `weight`, `kv` or `activation`; `bytes` covers broadcast dimensions once."""

    shape: tuple[int, ...]
    dtype: str
    role: str
    bytes: int


@dataclass(frozen=True)
class TracedOp:
    """One op as it ran: the layer's path, the operator's name, operands, and scalar arguments."""

    path: str
    op: str
    inputs: tuple[TracedTensor, ...]
    outputs: tuple[TracedTensor, ...]
    is_view: bool
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Edge:
    """Tensors made in one layer and read in another; `bytes` is their size."""

    source_path: str
    target_path: str
    tensors: int
    bytes: int


@dataclass(frozen=True)
class TraceResult:
    """The ops of one step in the order they ran, and the data that flowed between layers."""

    ops: list[TracedOp]
    edges: list[Edge]


def trace(
    model: nn.Module,
    call: Callable[[], Any],
    *,
    cache: Callable[[], Iterable[torch.Tensor]] = lambda: (),
    experts_per_token: int | None = None,
) -> TraceResult:
    """Runs `call`, which calls `model` once, and returns what it executed.

    `cache` gives the tensors of the key-value cache; it is asked before and after the call.
    `experts_per_token` becomes an attribute of grouped products, whose shapes do not tell it. The model is
    left as it was: the hooks that follow the layers are taken off again, also if the call fails.
    """
    recorder = _Recorder(experts_per_token)
    recorder.mark(_state_of(model), "weight")
    recorder.mark(cache(), "kv")
    leaving = model.register_forward_hook(recorder.leaves_the_model)
    try:
        with torch.inference_mode(), follow_layers(model, recorder.path_stack), recorder:
            call()
    finally:
        leaving.remove()
    recorder.mark(cache(), "kv")
    return recorder.result()


def restated(result: TraceResult, traced: str, wanted: str) -> TraceResult:
    """The same trace with its tensors of one dtype told in another; the bytes of edges with them."""
    sizes = {name: torch.empty(0, dtype=dtype).element_size() for dtype, name in DTYPE_NAMES.items()}
    if sizes[traced] == sizes[wanted] and traced == wanted:
        return result

    def tensor(t: TracedTensor) -> TracedTensor:
        if t.dtype != traced:
            return t
        return replace(t, dtype=wanted, bytes=t.bytes // sizes[traced] * sizes[wanted])

    ops = [
        replace(op, inputs=tuple(map(tensor, op.inputs)), outputs=tuple(map(tensor, op.outputs)))
        for op in result.ops
    ]
    edges = [replace(e, bytes=e.bytes // sizes[traced] * sizes[wanted]) for e in result.edges]
    return TraceResult(ops, edges)


def _state_of(model: nn.Module) -> Iterator[torch.Tensor]:
    """What a checkpoint of the model would hold: parameters and persistent buffers."""
    yield from model.parameters()
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield buffer


@contextmanager
def follow_layers(model: nn.Module, stack: list[str]) -> Iterator[None]:
    """Keeps the path of the layer that is running on top of `stack`."""
    handles: list[RemovableHandle] = []

    def enter(path: str) -> Callable[..., None]:
        return lambda *_: stack.append(path)

    def leave(*_: Any) -> None:
        stack.pop()

    try:
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(enter(path), prepend=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Operand:
    """A tensor as seen, classified only after the step: what it is depends on where its storage ends."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    storage: int


@dataclass
class _Seen:
    path: str
    op: str
    inputs: list[_Operand]
    outputs: list[_Operand]
    is_view: bool
    attributes: dict[str, Any] = field(default_factory=dict)


class _Recorder(TorchDispatchMode):
    def __init__(self, experts_per_token: int | None) -> None:
        super().__init__()
        self._experts_per_token = experts_per_token
        self.path_stack: list[str] = [""]
        self._seen: list[_Seen] = []
        self._roles: dict[int, str] = {}
        self._producer: dict[int, str] = {}
        self._flows: dict[tuple[str, str], dict[int, int]] = {}
        # Storages are told apart by address: while they are kept here no address is used twice.
        self._alive: list[Any] = []

    def mark(self, tensors: Iterable[torch.Tensor], role: str) -> None:
        """Says what the storages of these tensors are; the first word about a storage counts."""
        for tensor in tensors:
            self._roles.setdefault(self._storage(tensor), role)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = _laid_out_as_real(func, func(*args, **kwargs))
        if func.namespace == "prim" or func._schema.name in _BOOKKEEPING:
            return result
        inputs = [self._operand(t) for t in _tensors((args, kwargs))]
        outputs = [self._operand(t) for t in _tensors(result)]
        if not outputs:
            return result
        path = self.path_stack[-1]
        read = {operand.storage for operand in inputs}
        is_view = not func._schema.is_mutable and all(o.storage in read for o in outputs)
        for operand in inputs:
            self._producer.setdefault(operand.storage, "")
        if not is_view:  # a view reads nothing: whoever computes with it does
            self._flow(inputs, path)
            for operand in outputs:
                self._producer[operand.storage] = path
        name = f"{func.namespace}.{func._schema.name.partition('::')[2]}"
        attributes = _attributes(func, args, kwargs)
        if name == "aten._grouped_mm" and self._experts_per_token is not None:
            attributes["experts_per_token"] = self._experts_per_token
        self._seen.append(_Seen(path, name, inputs, outputs, is_view, attributes))
        return result

    def leaves_the_model(self, model: nn.Module, args: Any, output: Any) -> None:
        """A hook of the model: what it gives back flows to the model itself."""
        self._flow([self._operand(tensor) for tensor in _tensors(output)], "")

    def _flow(self, operands: Sequence[_Operand], target: str) -> None:
        for operand in operands:
            source = self._producer.get(operand.storage, "")
            if source != target:
                flow = self._flows.setdefault((source, target), {})
                flow[operand.storage] = max(flow.get(operand.storage, 0), operand.bytes)

    def result(self) -> TraceResult:
        ops = [
            TracedOp(
                seen.path,
                seen.op,
                tuple(self._classified(o) for o in seen.inputs),
                tuple(self._classified(o) for o in seen.outputs),
                seen.is_view,
                seen.attributes,
            )
            for seen in self._seen
        ]
        edges = []
        for (source, target), flow in self._flows.items():
            sizes = [size for storage, size in flow.items() if self._roles.get(storage) != "weight"]
            if sizes:
                edges.append(Edge(source, target, len(sizes), sum(sizes)))
        return TraceResult(ops, edges)

    def _classified(self, operand: _Operand) -> TracedTensor:
        role = self._roles.get(operand.storage, "activation")
        return TracedTensor(operand.shape, operand.dtype, role, operand.bytes)

    def _operand(self, tensor: torch.Tensor) -> _Operand:
        shape = tuple(tensor.shape)
        dtype = DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype).removeprefix("torch."))
        return _Operand(shape, dtype, covered_bytes(tensor), self._storage(tensor))

    def _storage(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        address: int = storage._cdata
        if address not in self._roles and address not in self._producer:
            self._alive.append(storage)
        return address


def _laid_out_as_real(func: Any, result: Any) -> Any:
    """On `meta` attention answers in another memory layout than fused kernels do, [b, s, h, d], and the
    reshape that follows would be counted as a copy that no device makes."""
    if func._schema.name == "aten::scaled_dot_product_attention" and result.is_meta:
        return result.transpose(1, 2).contiguous().transpose(1, 2)
    return result


def covered_bytes(tensor: torch.Tensor) -> int:
    """Bytes of storage a view covers: a dimension that repeats the same data counts once."""
    elements = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        elements *= size if stride or size == 0 else 1
    return elements * tensor.element_size()


def _tensors(tree: Any) -> Iterator[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from _tensors(item)


def _attributes(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are numbers, texts, flags or lists of numbers, under their names in the schema."""
    found: dict[str, Any] = {}
    for argument, value in zip(func._schema.arguments, args, strict=False):
        _keep(found, argument.name, value)
    for name, value in kwargs.items():
        _keep(found, name, value)
    return found


def _keep(found: dict[str, Any], name: str, value: Any) -> None:
    plain = (bool, int, float, str)
    if isinstance(value, plain) or (
        isinstance(value, (list, tuple)) and value and all(isinstance(item, plain) for item in value)
    ):
        found[name] = value
