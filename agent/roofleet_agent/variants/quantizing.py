"""Stores a model's matrices in eight or four bits, by torchao or, for int4 on a CPU, torch's own kernel."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.variants.matrices import (
    as_linear,
    expert_matrices,
    is_conv1d,
    linear_layers,
    output_head,
    replace_layer,
)
from roofleet_agent.variants.notes import Note

GROUPS = (128, 64, 32)
"""Weights that share a scale in int4: the largest of these that divides a layer's features is used."""


_READ_FROM_OUTSIDE = re.compile(r"\bdt_proj$")
"""Layers that are never called: Mamba's mixer reads the matrix of its time step out of the layer."""


def quantize(model: nn.Module, variant: str, device: torch.device) -> list[Note]:
    """Quantises every linear layer but the output head; the notes say which layers were left, and why.

    WorkloadRefused where torchao is missing or cannot do it on this device at all.
    """
    if importlib.util.find_spec("torchao") is None:
        raise WorkloadRefused(f"variant {variant} needs torchao: pip install 'roofleet[quantization]'")
    with _quiet():
        apply = _rules(device)[variant]
        notes = _each_layer(model, variant, apply)
    if variant == "int4-weight-only" and device.type == "cpu" and _computes_in_fp32(model):
        reason = "torch's int4 product for a CPU is slow in fp32"
        notes.append(Note("", reason, "kept as asked: --dtype bf16 is many times faster"))
    return notes


def _each_layer(model: nn.Module, variant: str, apply: Callable[[nn.Linear], nn.Linear]) -> list[Note]:
    notes, done, last = [], 0, ""
    for path, layer in list(linear_layers(model)):
        if _READ_FROM_OUTSIDE.search(path):
            notes.append(
                Note(path, "the layer around it multiplies with its matrix itself", "left as it was")
            )
            continue
        dtype = str(layer.weight.dtype).removeprefix("torch.")
        try:
            replace_layer(model, layer, apply(as_linear(layer)))
        except (RuntimeError, ValueError, AssertionError, NotImplementedError, ImportError) as error:
            last = str(error).splitlines()[0] if str(error) else type(error).__name__
            notes.append(Note(path, last, f"left in {dtype}"))
            continue
        done += 1
        if is_conv1d(layer):
            notes.append(Note(path, "Conv1D keeps its matrix transposed", f"made a Linear, then {variant}"))
    if not done:
        raise WorkloadRefused(
            f"variant {variant} could not be applied to any layer of {type(model).__name__}"
            + (f": {last}" if last else ", which has no linear layers")
        )
    notes += [
        Note(path, "experts in one parameter are no linear layers", "left as they were")
        for path, _ in expert_matrices(model)
    ]
    head = output_head(model)
    for path, module in model.named_modules():
        if module is head:
            notes.append(Note(path, "the output head decides the logits and is often tied", "left as it was"))
    return notes


def _rules(device: torch.device) -> dict[str, Callable[[nn.Linear], nn.Linear]]:
    from torchao.quantization import (
        Int4WeightOnlyConfig,
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    def by(config: Any) -> Callable[[nn.Linear], nn.Linear]:
        def apply(layer: nn.Linear) -> nn.Linear:
            quantize_(layer, config)
            return layer

        return apply

    def int8_dynamic(layer: nn.Linear) -> nn.Linear:
        # torchao multiplies matrices of odd sizes on the CPU, where `meta` has no data to take. The weight is
        # stored alike in both ways, and the product counts the same.
        odd = device.type == "meta" and (layer.in_features % 8 or layer.out_features % 8)
        return by(Int8WeightOnlyConfig() if odd else Int8DynamicActivationInt8WeightConfig())(layer)

    def int4(layer: nn.Linear) -> nn.Linear:
        group = _group(layer.in_features)
        if device.type in ("cpu", "meta"):  # torchao has packed int4 for accelerators only
            return Int4Linear(layer, group)
        quantize_(layer, Int4WeightOnlyConfig(group_size=group, int4_packing_format="tile_packed_to_4d"))
        return layer

    return {
        "int8-dynamic": int8_dynamic,
        "int8-weight-only": by(Int8WeightOnlyConfig()),
        "int4-weight-only": int4,
    }


def _computes_in_fp32(model: nn.Module) -> bool:
    return any(p.dtype == torch.float32 for p in model.parameters())


def _group(features: int) -> int:
    for group in GROUPS:
        if features % group == 0:
            return group
    raise ValueError(f"its {features} input features are no multiple of {GROUPS[-1]}, the smallest group")


class Int4Linear(nn.Linear):
    """A linear layer with its matrix in four bits, two weights a byte, for torch's int4 product on the CPU.

    weight [n, k] -> packed [n, k / 2] bytes, and scale and zero [k / group, n, 2] in the layer's dtype: a
    weight is (q - 8) * scale + zero with q from 0 to 15, as that product reads it.
    """

    def __init__(self, layer: nn.Linear, group: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.group = layer.in_features, layer.out_features, group
        weight = layer.weight.detach()
        if self.out_features % 16:
            raise ValueError(f"its {self.out_features} output features are no multiple of 16")
        grouped = weight.float().view(self.out_features, -1, group)
        low, high = grouped.amin(-1), grouped.amax(-1)
        scale = ((high - low) / 15).clamp(min=1e-8)
        digits = ((grouped - low[..., None]) / scale[..., None]).round().clamp(0, 15).to(torch.int32)
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(digits.view_as(weight), 1)
        scales = torch.stack([scale, low + 8 * scale], -1).permute(1, 0, 2).contiguous()
        self.register_buffer("packed", packed)
        self.scales_and_zeros: torch.Tensor
        self.register_buffer("scales_and_zeros", scales.to(weight.dtype))
        self.register_parameter("bias", None)
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)

    @property
    def packed_parameters(self) -> int:
        """Weights that stand in the packed bytes."""
        return self.in_features * self.out_features

    @property
    def weight(self) -> torch.Tensor:  # type: ignore[override]
        """What models ask for the dtype they are to compute in; the matrix itself is in `packed`."""
        return self.scales_and_zeros

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """x [..., k] -> [..., n]."""
        flat = input.reshape(-1, self.in_features).contiguous()
        out: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(
            flat, self.packed, self.group, self.scales_and_zeros
        )
        out = out.view(*input.shape[:-1], self.out_features)
        return out if self.bias is None else out + self.bias


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torchao from reporting each of its kernels that it could not load for other hardware."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
