"""Refuses what would write to a tensor that is the user's, before it is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from roofleet_agent.storage import plain_tensors
from roofleet_agent.tracing.operands import tensors_in

# operator: the arguments it writes to without saying so in its schema, and the one that says whether it does
_UNSAID = {
    "aten::batch_norm": ((3, 4), 5),
    "aten::instance_norm": ((3, 4), 5),
    "aten::native_batch_norm": ((3, 4), 5),
    "aten::cudnn_batch_norm": ((3, 4), 5),
    "aten::miopen_batch_norm": ((3, 4), 5),
}


class Refused(BaseException):
    """An op would have written to `tensor`, which is the user's. Code of theirs does not catch it."""

    def __init__(self, tensor: torch.Tensor, op: str) -> None:
        super().__init__(op)
        self.tensor = tensor


class OnlyOwn(TorchDispatchMode):
    """While it is entered, ops may write to tensors they make, and to those given, and to no others."""

    supports_higher_order_operators = True

    def __init__(self, own: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.refused: Refused | None = None
        self._own = {_storage(plain) for tensor in own for plain in plain_tensors(tensor)}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        schema = getattr(func, "_schema", None)
        for tensor in written(schema, args, kwargs):
            if any(_storage(plain) not in self._own for plain in plain_tensors(tensor)):
                self.refused = Refused(tensor, str(func))
                raise self.refused
        read = {_storage(plain) for tensor in tensors_in((args, kwargs)) for plain in plain_tensors(tensor)}
        result = func(*args, **kwargs)
        made = {_storage(plain) for tensor in tensors_in(result) for plain in plain_tensors(tensor)}
        # what torch.tensor makes comes as if it were given
        self._own |= made if getattr(schema, "name", "") == "aten::lift_fresh" else made - read
        return result


def written(schema: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Iterator[torch.Tensor]:
    """The tensors that an op writes to."""
    if schema is None:
        return
    unsaid = _UNSAID.get(schema.name)
    if unsaid is not None and len(args) > unsaid[1] and args[unsaid[1]]:
        yield from tensors_in([args[place] for place in unsaid[0]])
    if schema.is_mutable:
        named = {a.name: value for a, value in zip(schema.arguments, args, strict=False)} | kwargs
        for argument in schema.arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                yield from tensors_in(named.get(argument.name))


def _storage(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)
