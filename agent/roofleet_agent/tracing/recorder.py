"""Notes every op of a step while it runs: the modes that see it, and who wrote and read what."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass

from roofleet_agent.names import op_name
from roofleet_agent.storage import plain_tensors
from roofleet_agent.tracing.folding import Skipped, fold
from roofleet_agent.tracing.loops import listeners
from roofleet_agent.tracing.operands import (
    covered_bytes,
    dtype_name,
    is_bookkeeping,
    laid_out_as_fused,
    packed_weights,
    plain_arguments,
    quantized_input,
    shape_of,
    tensors_in,
)
from roofleet_agent.tracing.records import Edge, TracedOp, TracedTensor, TraceResult
from roofleet_agent.tracing.tape import Event, followers

_PICKS = frozenset({"aten.index", "aten.index_select"})
"""How experts that run as a batched product fetch their weights."""


class _Operand(NamedTuple):
    """A tensor as seen, classified only after the step: what it is depends on where its storage ends."""

    shape: tuple[int, ...]
    dtype: str
    bytes: int
    storage: int


class _Ran(NamedTuple):
    """What an op was: the shape, dtype and bytes of each operand, without their storages."""

    op: str
    inputs: tuple[tuple[Any, ...], ...]
    outputs: tuple[tuple[Any, ...], ...]
    is_view: bool
    attributes: dict[str, Any]


class Recorder(TorchDispatchMode):
    """A dispatch mode: while it is entered it notes each op under the path on top of `path_stack`."""

    supports_higher_order_operators = True

    def __init__(self, experts_per_token: int | None) -> None:
        super().__init__()
        self._experts_per_token = experts_per_token
        self.path_stack: list[str] = [""]
        self._paused = False
        self._seen: list[Event] = []
        self._roles: dict[int, str] = {}
        self._producer: dict[int, str] = {}
        self._flows: dict[tuple[str, str], dict[int, int]] = {}
        self._same: dict[int, int] = {}
        self._round_began = 0
        self._skipped: list[Skipped] = []
        # Storages are told apart by address: while they are kept here no address is used twice.
        self._alive: list[Any] = []
        self._tape: list[Event] | None = None
        self._taped: tuple[int, Container[int]] = (0, ())

    def mark(self, tensors: Iterable[torch.Tensor], role: str) -> None:
        """Says what the storages of these tensors are; the first word about a storage counts."""
        for tensor in tensors:
            for plain in plain_tensors(tensor):
                self._happen(Event("is", (self._storage(plain),), rest=role, begins="met"))

    def __enter__(self) -> Recorder:
        listeners.append(self)
        followers.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        followers.remove(self)
        listeners.remove(self)

    def standing_for_others(self) -> None:
        """See loops.Listener."""
        self._happen(Event("round"))

    def skipped(self, rounds: int) -> None:
        """See loops.Listener."""
        self._happen(Event("skipped", rest=rounds))

    def stacked(self, like: torch.Tensor, count: int, call: Callable[[], Any], attributes: Any) -> Any:
        """See loops.Listener."""
        with self.paused():
            result = call()
        one = self._operand(like)
        many = one._replace(shape=(count, *one.shape), bytes=count * one.bytes)
        self._add("aten.stack", [many], [self._operand(result)], False, attributes)
        return result

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = laid_out_as_fused(func, func(*args, **kwargs))
        if not self._paused:
            self._note(func, args, kwargs, result)
        return result

    def whole(self, name: str, call: Callable[[], Any], operands: Iterable[torch.Tensor]) -> Any:
        """Runs `call` and notes it as one op of that name on these operands, without the ops inside it."""
        with self.paused():
            result = call()
        tensors = list(operands)
        quantized = quantized_input(tensors)
        attributes = {} if quantized is None else {"quantized_input": quantized}
        inputs = [self._operand(t) for t in tensors]
        self._add(name, inputs, [self._operand(t) for t in tensors_in(result)], False, attributes)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """See Follower.paused."""
        before, self._paused = self._paused, True
        try:
            yield
        finally:
            self._paused = before

    def _note(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        schema = getattr(func, "_schema", None)  # a higher-order op has none
        name, is_mutable = op_name(func), schema is not None and schema.is_mutable
        if is_bookkeeping(func):
            return
        inputs = [self._operand(t) for t in tensors_in((args, kwargs))]
        inputs += self._packed(args)
        outputs = [self._operand(t) for t in tensors_in(result)]
        if not outputs:
            outputs = [self._operand(t) for t in tensors_in(_written(schema, args, kwargs))]
        if not outputs and (schema is None or func.namespace == "aten"):
            return  # a question, such as whether two shapes agree
        read = {operand.storage for operand in inputs}
        is_view = not is_mutable and bool(outputs) and all(o.storage in read for o in outputs)
        if name == "aten.to" and _only_moves_a_number(inputs, outputs):
            # A number made on the host for the device: on the CPU nothing happens at all.
            is_view = True
            self._happen(Event("same", (outputs[0].storage, inputs[0].storage), begins="met"))
        attributes = plain_arguments(func, args, kwargs)
        if self._experts_per_token is not None and (
            name == "aten._grouped_mm" or (name in _PICKS and self._roles.get(inputs[0].storage) == "weight")
        ):
            attributes["experts_per_token"] = self._experts_per_token
        self._add(name, inputs, outputs, is_view, attributes)

    def _add(
        self,
        name: str,
        inputs: list[_Operand],
        outputs: list[_Operand],
        is_view: bool,
        attributes: dict[str, Any],
    ) -> None:
        storages = tuple(operand.storage for operand in (*inputs, *outputs))
        read, given = (tuple(operand[:3] for operand in operands) for operands in (inputs, outputs))
        ran = _Ran(name, read, given, is_view, attributes)
        self._happen(Event("ran", storages, self.path_stack[-1], ran))

    def _happen(self, event: Event) -> None:
        if self._tape is not None:
            self._tape.append(event)
        self.happened(event)

    def happened(self, event: Event) -> None:
        """See Follower.happened."""
        match event:
            case Event("ran", storages, str(path), _Ran(_, inputs, _, is_view)):
                self._seen.append(event)
                read, written = storages[: len(inputs)], storages[len(inputs) :]
                for storage in read:
                    self._producer.setdefault(storage, "")
                if not is_view:  # a view reads nothing: whoever computes with it does
                    self._flow(zip(read, (size for _, _, size in inputs), strict=True), path)
                    for storage in written:
                        self._producer[storage] = path
            case Event("is", (storage,), rest=role):
                self._roles.setdefault(storage, role)
            case Event("same", (storage, other)):
                self._same[storage] = other
            case Event("round"):
                self._round_began = len(self._seen)
            case Event("skipped", rest=rounds):
                self._skipped.append(Skipped(self._round_began, len(self._seen), rounds))

    def begin_tape(self, given: Container[int]) -> None:
        """See Follower.begin_tape."""
        self._tape, self._taped = [], (len(self._alive), given)

    def end_tape(self) -> tuple[list[Event], set[int]]:
        """See Follower.end_tape."""
        tape, self._tape = self._tape or [], None
        first, given = self._taped
        # one use is ours: see _alive
        held = {s._cdata for s in self._alive[first:] if torch._C._storage_Use_Count(s._cdata) > 1}
        return tape, {address for address in held if address not in given}

    def adopt(self, storage: torch.UntypedStorage) -> None:
        """See Follower.adopt."""
        self._alive.append(storage)

    def leaves_the_model(self, output: Any) -> None:
        """What the model gives back flows to the model itself."""
        operands = [self._operand(tensor) for tensor in tensors_in(output)]
        self._flow([(operand.storage, operand.bytes) for operand in operands], "")

    def _flow(self, operands: Iterable[tuple[int, int]], target: str) -> None:
        """Storages, with how many of their bytes, flow to a layer."""
        for storage, size in operands:
            source = self._producer.get(storage, "")
            if source != target:
                flow = self._flows.setdefault((source, target), {})
                flow[storage] = max(flow.get(storage, 0), size)

    def result(self) -> TraceResult:
        """What was noted, loops folded."""
        known: dict[Any, tuple[TracedTensor, ...]] = {}

        def classified(operands: Sequence[tuple[Any, ...]], storages: Iterable[int]) -> Any:
            roles = tuple(self._roles.get(storage, "activation") for storage in storages)
            key = operands, roles  # blocks that are alike have the same many times
            if key not in known:
                told = zip(operands, roles, strict=True)
                known[key] = tuple(TracedTensor(shape, dtype, role, n) for (shape, dtype, n), role in told)
            return known[key]

        ops = []
        for _, storages, path, ran, *_ in self._seen:
            inputs = classified(ran.inputs, storages[: len(ran.inputs)])
            outputs = classified(ran.outputs, storages[len(ran.inputs) :])
            ops.append(TracedOp(path or "", ran.op, inputs, outputs, ran.is_view, ran.attributes))
        edges = []
        for (source, target), flow in self._flows.items():
            sizes = [size for storage, size in flow.items() if self._roles.get(storage) != "weight"]
            if sizes:
                edges.append(Edge(source, target, len(sizes), sum(sizes)))
        return TraceResult(fold(ops, self._skipped), edges)

    def _packed(self, args: Sequence[Any]) -> list[_Operand]:
        with self.paused():
            weights = packed_weights(args)
            self.mark(weights, "weight")
            return [self._operand(weight) for weight in weights]

    def _operand(self, tensor: torch.Tensor) -> _Operand:
        storage = self._storage(next(plain_tensors(tensor)))
        return _Operand(shape_of(tensor), dtype_name(tensor), covered_bytes(tensor), storage)

    def _storage(self, tensor: torch.Tensor) -> int:
        storage = tensor.untyped_storage()
        address: int = storage._cdata
        if address not in self._roles and address not in self._producer:
            self._alive.append(storage)
            self._happen(Event("met", (address,), begins="met"))
        return self._same.get(address, address)


class WholeProducts(TorchFunctionMode):
    """Notes a product or lookup with a wrapped tensor, such as a quantised weight, as the op it stands for.

    How the wrapper computes it, by integers, by unpacking first or by a kernel of its own, must not change
    what is counted.
    """

    _names = frozenset({"linear", "matmul", "mm", "bmm", "addmm", "embedding"})

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        if name not in self._names or not any(map(is_traceable_wrapper_subclass, tensors_in((args, kwargs)))):
            return func(*args, **kwargs)
        operands = list(tensors_in((args, kwargs)))
        if name == "embedding":  # the function takes ids and table, the op table and ids
            operands = operands[1::-1]
        return self._recorder.whole(f"aten.{name}", lambda: func(*args, **kwargs), operands)


def _written(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any]:
    """The arguments an op writes into, for one that answers nothing, as kernels of users often do."""
    if schema is None or not schema.is_mutable:
        return []
    named = {a.name: value for a, value in zip(schema.arguments, args, strict=False)} | kwargs
    return [
        named[a.name]
        for a in schema.arguments
        if a.alias_info is not None and a.alias_info.is_write and a.name in named
    ]


def _only_moves_a_number(inputs: Sequence[_Operand], outputs: Sequence[_Operand]) -> bool:
    return len(outputs) == 1 and inputs[0].shape == () and inputs[0].dtype == outputs[0].dtype
