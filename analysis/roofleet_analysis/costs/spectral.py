"""Formulas of Fourier transforms: 5 n log2 n operations for n complex numbers, half of it for real ones.

It is the count by which such libraries are compared (fftw.org/speed), not what each of them executes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2, prod

from roofleet_analysis.costs.registry import FORMULAS, Op, Tensor, Work, formula


def transformed(batch: int, sizes: Sequence[int], real: bool) -> int:
    """Operations of `batch` transforms over these sizes."""
    n = prod(sizes)
    return round(batch * (2.5 if real else 5) * n * log2(n)) if n > 1 else 0


def _rule(dimensions: int | None, real: bool) -> Callable[[Op], Work]:
    def rule(op: Op) -> Work:
        # x: [..., n, ...]: of a real transform the longer side says how many numbers there are
        x, out = op.inputs[0], op.outputs[0]
        full = _longer(x, out)
        dims = op.attributes.get("dim")
        if dims is None:
            dims = range(-(dimensions or len(full.shape)), 0)
        sizes = [full.shape[d] for d in ([dims] if isinstance(dims, int) else dims)]
        return Work(
            other_flops=transformed(full.elements // prod(sizes), sizes, real or not _is_complex(x)),
            counts_real=True,
        )

    return rule


def _longer(x: Tensor, out: Tensor) -> Tensor:
    return x if x.elements >= out.elements else out


def _is_complex(tensor: Tensor) -> bool:
    return tensor.dtype.startswith("complex")


for _end, _dimensions in (("", 1), ("2", 2), ("n", None)):
    for _start, _real in (("", False), ("i", False), ("r", True), ("ir", True), ("h", True), ("ih", True)):
        FORMULAS[f"aten.fft_{_start}fft{_end}"] = _rule(_dimensions, _real)
for _name, _real in (("c2c", False), ("r2c", True), ("c2r", True)):
    FORMULAS[f"aten._fft_{_name}"] = _rule(None, _real)


@formula("aten.stft")
def stft(op: Op) -> Work:
    # x: [b, samples], a window or none -> [b, frequencies, frames]: each frame windowed and transformed
    n, out = op.attributes["n_fft"], op.outputs[0]
    frequencies = n // 2 + 1 if op.attributes.get("onesided", not _is_complex(op.inputs[0])) else n
    frames = _spectra(out, frequencies)
    return Work(
        other_flops=frames * n + transformed(frames, [n], not _is_complex(op.inputs[0])), counts_real=True
    )


@formula("aten.istft")
def istft(op: Op) -> Work:
    # x: [b, frequencies, frames] -> [b, samples]: each frame transformed, windowed and added
    n, x = op.attributes["n_fft"], op.inputs[0]
    frames = _spectra(x, x.shape[-2])
    return Work(other_flops=2 * frames * n + transformed(frames, [n], x.shape[-2] < n), counts_real=True)


def _spectra(spectra: Tensor, frequencies: int) -> int:
    """How many frames there are; as pairs of real numbers each has twice as many."""
    return spectra.elements // frequencies // (1 if _is_complex(spectra) else 2)
