"""Measures a device's roofs: matrix products for each dtype, and the bandwidth of its memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

ROUNDS = 5
MEASURE_S = 0.5
_LONGEST_S = 0.25
"""Products grow until the next would take longer: a dtype that is emulated is measured on small ones."""


@dataclass(frozen=True)
class MeasuredRoof:
    """A roof as measured: FLOP/s for a dtype, or bytes/s of the memory; the other is None."""

    kind: str
    dtype: str | None
    flops_per_s: float | None
    bytes_per_s: float | None
    source: str
    measured_at: datetime


def measure_roofs(
    device: torch.device, *, done: Callable[[str], None] = lambda _: None
) -> list[MeasuredRoof]:
    """The best of a few rounds of each kernel; `done` hears the name of each roof.

    A roof is the most the device was seen to do, through the library the models use, with the threads they
    use. Products are square and large enough to be bound by compute; the bandwidth is the best of a copy, a
    sum and a matrix-vector product, on data larger than the caches.
    """
    roofs = [_bandwidth(device)]
    done("memory bandwidth")
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.float16, "fp16")):
        roof = _matmul(device, dtype, name)
        if roof is not None:
            roofs.append(roof)
        done(f"{name} matrix product")
    return roofs


def _matmul(device: torch.device, dtype: torch.dtype, name: str) -> MeasuredRoof | None:
    sizes = (512, 1024, 2048) if device.type == "cpu" else (2048, 4096, 8192)
    try:
        for size in sizes:
            product = _product(device, dtype, size)
            if 8 * _best(device, product, rounds=1, budget_s=0) > _LONGEST_S:
                break
        seconds = _best(device, product)
    except (RuntimeError, NotImplementedError):
        return None  # the backend has no product for this dtype: then it has no roof for it either
    source = f"torch.mm of {size} x {size} {name} matrices, best of several{_threads(device)}"
    return MeasuredRoof("compute", name, 2 * size**3 / seconds, None, source, datetime.now(UTC))


def _product(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], Any]:
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _bandwidth(device: torch.device) -> MeasuredRoof:
    elements = (256 if device.type == "cpu" else 1024) * 1024 * 1024 // 4
    source = torch.ones(elements, device=device)
    target = torch.empty_like(source)
    rows = source.view(-1, 8192)
    vector = torch.ones(8192, device=device)
    kernels: dict[str, tuple[Callable[[], Any], int]] = {
        "copy": (lambda: target.copy_(source), 2),
        "sum": (source.sum, 1),
        "matrix-vector product": (lambda: torch.mv(rows, vector), 1),
    }
    rates = {
        name: passes * elements * 4 / _best(device, kernel) for name, (kernel, passes) in kernels.items()
    }
    best = max(rates, key=lambda name: rates[name])
    text = f"fp32 {best} over {elements * 4 // 2**20} MiB, best of several{_threads(device)}"
    return MeasuredRoof("memory", None, None, rates[best], text, datetime.now(UTC))


def _threads(device: torch.device) -> str:
    return f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""


def _best(
    device: torch.device, kernel: Callable[[], Any], rounds: int = ROUNDS, budget_s: float = MEASURE_S
) -> float:
    """Shortest time of a call in seconds, after one that is not counted."""

    def once() -> float:
        begin = time.perf_counter()
        kernel()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - begin

    with torch.inference_mode():
        once()
        # A few rounds, and more where they are short: on a busy machine one of many meets no other work.
        end = time.perf_counter() + budget_s
        best = min(once() for _ in range(rounds))
        while time.perf_counter() < end:
            best = min(best, once())
        return best
