"""What an operand is: shape, dtype and bytes of plain, wrapped and packed tensors, and plain arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from roofleet_agent.storage import plain_tensors

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
    torch.qint8: "int8",
    torch.quint8: "uint8",
}


_BOOKKEEPING = frozenset({"aten::lift_fresh", "aten::detach", "aten::detach_", "aten::alias"})


def is_bookkeeping(func: Any) -> bool:
    """Whether an op is torch's own housekeeping, which differs between devices and neither computes nor moves
    anything."""
    schema = getattr(func, "_schema", None)
    return schema is not None and (func.namespace == "prim" or schema.name in _BOOKKEEPING)


def laid_out_as_fused(func: Any, result: Any) -> Any:
    """Attention's answer in the memory layout that fused kernels give, [b, s, h, d].

    `meta` answers in another, and so do a CPU's kernels for some masks and sizes; the reshape that follows
    would be a copy on one device and not on the other.
    """
    if str(func) == "aten.scaled_dot_product_attention.default" and result.dim() == 4:
        return result.transpose(1, 2).contiguous().transpose(1, 2)
    return result


def dtype_name(tensor: torch.Tensor) -> str:
    """The dtype data is kept in: a quantised weight has that of its integers, `int4` if two share a byte."""
    data = max(plain_tensors(tensor), key=lambda t: t.numel() * t.element_size())
    if data is not tensor and tensor.numel() and not data.is_floating_point():
        bits = 8 * data.numel() * data.element_size() / tensor.numel()
        if bits <= 5:  # rows may be padded, and scales packed between the numbers
            return "int4"
    return DTYPE_NAMES.get(data.dtype, str(data.dtype).removeprefix("torch."))


def quantized_input(operands: Sequence[torch.Tensor]) -> str | None:
    """The type that a product's input is quantised to on its way, so that both sides multiply in it; None
    where it stays as it is and the weight is unpacked.

    torchao's weights tell how they quantise the other side: `act_quant_kwargs`, formerly `input_quant_func`.
    """
    for tensor in operands:
        if any(getattr(tensor, name, None) is not None for name in ("act_quant_kwargs", "input_quant_func")):
            return dtype_name(tensor)
    return None


def shape_of(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape of a tensor; of a nested one, sequences of unlike lengths, that of all padded to the longest:
    what a mask hides is counted there as it is elsewhere."""
    if not (tensor.is_nested and tensor.layout is torch.strided):
        return tuple(tensor.shape)
    sizes = tensor._nested_tensor_size()
    return (sizes.shape[0], *sizes.amax(0).tolist())


def covered_bytes(tensor: torch.Tensor) -> int:
    """Bytes of storage a view covers: a dimension that repeats the same data counts once.

    A tensor that wraps others takes what they take, scales and zero points included.
    """
    total = 0
    for plain in plain_tensors(tensor):
        if plain.is_nested:
            total += plain.numel() * plain.element_size()
            continue
        elements = 1
        for size, stride in zip(plain.shape, plain.stride(), strict=True):
            elements *= size if stride or size == 0 else 1
        total += elements * plain.element_size() + _scale_bytes(plain)
    return total


def _scale_bytes(tensor: torch.Tensor) -> int:
    """Of torch's own quantised tensors, which keep scale and zero point in fields beside the data."""
    if not tensor.is_quantized or tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
        return 0
    scales, zeros = tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()
    return int(scales.numel() * scales.element_size() + zeros.numel() * zeros.element_size())


def tensors_in(tree: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested lists, tuples and dicts, in order."""
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (list, tuple)):
        for item in tree:
            yield from tensors_in(item)
    elif isinstance(tree, dict):
        for item in tree.values():
            yield from tensors_in(item)


def packed_weights(args: Sequence[Any]) -> list[torch.Tensor]:
    """The weight and bias in the packed parameters of torch's own quantised layers, which are no tensors."""
    found = []
    for value in args:
        if isinstance(value, torch.ScriptObject) and hasattr(value, "unpack"):
            unpacked = value.unpack()
            parts = unpacked if isinstance(unpacked, tuple) else (unpacked,)
            found += [part for part in parts if isinstance(part, torch.Tensor)]
    return found


def plain_arguments(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments that are numbers, texts, flags or lists of numbers, under their names in the schema."""
    found: dict[str, Any] = {}
    schema = getattr(func, "_schema", None)
    if schema is not None:
        for argument, value in zip(schema.arguments, args, strict=False):
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
