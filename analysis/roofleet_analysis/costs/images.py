"""Formulas of pooling and resampling: windows that are added or compared, and pixels between others."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula


def _pool(dimensions: int) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # x: [..., *] -> [..., *]: one comparison or sum an element of the window
        window = prod(_for_each(op.attributes["kernel_size"], dimensions))
        return Work(other_flops=op.outputs[0].elements * window)

    return rule


def _for_each(value: Any, dimensions: int) -> list[int]:
    """Sizes of a window: one number, or a list of one, holds for every dimension."""
    sizes = list(value) if isinstance(value, (list, tuple)) else [value]
    return sizes * dimensions if len(sizes) == 1 else sizes


for _dimensions in (1, 2, 3):
    for _name in ("max_pool{}d", "max_pool{}d_with_indices", "avg_pool{}d", "mkldnn_max_pool{}d",
                  "quantized_max_pool{}d", "fractional_max_pool{}d"):  # fmt: skip
        FORMULAS[f"aten.{_name.format(_dimensions)}"] = _pool(_dimensions)


def _adaptive(op: Op) -> Work:
    # x: [..., *] -> [..., *]: windows cover every element at least once, and an element is at least a window
    return Work(other_flops=max(op.inputs[0].elements, op.outputs[0].elements))


for _name in ("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d",
              "_adaptive_avg_pool3d", "mkldnn_adaptive_avg_pool2d", "adaptive_max_pool1d",
              "adaptive_max_pool2d", "adaptive_max_pool3d"):  # fmt: skip
    FORMULAS[f"aten.{_name}"] = _adaptive


def _between(neighbours: int) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # x: [b, c, *] -> [b, c, *]: so many neighbours are weighted and added for each new pixel
        return Work(other_flops=2 * neighbours * op.outputs[0].elements)

    return rule


for _name, _neighbours in (("upsample_linear1d", 2), ("upsample_bilinear2d", 4), ("upsample_trilinear3d", 8),
                           ("upsample_bicubic2d", 16)):  # fmt: skip
    FORMULAS[f"aten.{_name}"] = _between(_neighbours)


def _smoothed(support: float) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # as above, one dimension after the other: where the image shrinks the window grows with it
        x, out = op.inputs[0], op.outputs[0]
        scales = [max(a / b, 1.0) for a, b in zip(x.shape[2:], out.shape[2:], strict=True)]
        rows = out.elements // out.shape[-2] * x.shape[-2]  # narrowed first, not yet shortened
        return Work(other_flops=round(4 * support * (scales[1] * rows + scales[0] * out.elements)))

    return rule


for _name, _support in (("_upsample_bilinear2d_aa", 1), ("_upsample_bicubic2d_aa", 2),
                        ("_upsample_lanczos2d_aa", 3)):  # fmt: skip
    FORMULAS[f"aten.{_name}"] = _smoothed(_support)


@formula("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d", "aten.cudnn_grid_sampler",
         "aten._grid_sampler_2d_cpu_fallback")  # fmt: skip
def grid_sampler(op: Op) -> Work:
    # x: [b, c, *], grid: [b, *, 2 or 3] -> [b, c, *]: mode 0 weighs 4 (in space 8) neighbours, mode 1 takes
    # the nearest, mode 2 weighs 16; of each place three operations a coordinate
    grid = op.inputs[1]
    dimensions = grid.shape[-1]
    neighbours = {0: 2**dimensions, 1: 0, 2: 4**dimensions}[op.attributes.get("interpolation_mode", 0)]
    return Work(other_flops=2 * neighbours * op.outputs[0].elements + 3 * grid.elements)


@formula("aten.col2im")
def folded(op: Op) -> Work:
    # x: [b, c * window, places] -> [b, c, h, w]: overlapping windows are added
    return Work(other_flops=op.inputs[0].elements)
