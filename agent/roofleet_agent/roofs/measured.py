"""Measures a device's roofs: matrix products for each dtype, and the bandwidth of its memory and caches."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import torch

from roofleet_agent.roofs.caches import cache_bytes

ROUNDS = 3
MEASURE_S = 0.3
_LONGEST_S = 0.25
"""Products grow until the next would take longer: a dtype that is emulated is measured on small ones."""
_SHORTEST_S = 2e-4
"""Calls that are shorter are timed several at once, or the clock and the launch would be measured too."""
MEMORY_BYTES = 256 * 2**20
"""Size of each tensor that the memory's roof is measured on where nothing tells how large the caches are."""
LEAST_MEMORY_BYTES = 64 * 2**20
"""Elsewhere it is four times the caches, so that no more than a quarter of it can be in them, and this at
least. Not more: smaller weights than it would be taken for what may stay in a cache."""
CACHED_BYTES = {"cpu": (2**19, 2**21), "accelerator": (2**22, 2**24)}
"""Sizes of the tensors that the roof of the caches is measured on."""


@dataclass(frozen=True)
class MeasuredRoof:
    """A roof as measured: FLOP/s for a dtype, or bytes/s of a memory; the other is None.

    `size_bytes` is the data that was worked on, and `spread` how much longer the median round took than the
    best.
    """

    kind: str
    dtype: str | None
    memory_level: str | None
    flops_per_s: float | None
    bytes_per_s: float | None
    source: str
    measured_at: datetime
    size_bytes: int
    spread: float


@dataclass(frozen=True)
class _Rounds:
    """Seconds of a call: the best of several rounds, and by how much the median is longer."""

    best_s: float
    spread: float


def measure_roofs(
    device: torch.device, *, done: Callable[[str], None] = lambda _: None, budget_s: float = MEASURE_S
) -> list[MeasuredRoof]:
    """The best of a few rounds of each kernel; `done` hears the name of each roof.

    A roof is the most the device was seen to do, through the library the models use, with the threads they
    use. Products are square and large enough to be bound by compute. The memory's bandwidth is the best of a
    copy, an addition, a sum and a matrix-vector product on data larger than the caches, and that of the
    caches the best of the same on data that stay in them. `budget_s` is how long each kernel is repeated.
    """
    roofs = []
    for level in ("dram" if device.type == "cpu" else "device", "cache"):
        roofs.append(_bandwidth(device, level, budget_s))
        done("cache bandwidth" if level == "cache" else "memory bandwidth")
    for dtype, name in (
        (torch.float32, "fp32"),
        (torch.bfloat16, "bf16"),
        (torch.float16, "fp16"),
        (torch.int8, "int8"),
    ):
        roof = _matmul(device, dtype, name, budget_s)
        if roof is not None:
            roofs.append(roof)
        done(f"{name} matrix product")
    return roofs


def _matmul(device: torch.device, dtype: torch.dtype, name: str, budget_s: float) -> MeasuredRoof | None:
    sizes = (512, 1024, 2048) if device.type == "cpu" else (2048, 4096, 8192)
    try:
        for size in sizes:
            product = _product(device, dtype, size)
            if 8 * _rounds(device, product, rounds=1, budget_s=0).best_s > _LONGEST_S:
                break
        found = _rounds(device, product, budget_s=budget_s)
    except (RuntimeError, NotImplementedError):
        return None  # the backend has no product for this dtype: then it has no roof for it either
    kernel = "torch._int_mm" if dtype == torch.int8 else "torch.mm"
    source = f"{kernel} of {size} x {size} {name} matrices, best of several{_threads(device)}"
    held = size * size * (2 * dtype.itemsize + (4 if dtype == torch.int8 else dtype.itemsize))
    rate = 2 * size**3 / found.best_s
    return MeasuredRoof("compute", name, None, rate, None, source, datetime.now(UTC), held, found.spread)


def _product(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], Any]:
    if dtype == torch.int8:
        left, right = (torch.randint(-127, 127, (size, size), dtype=dtype, device=device) for _ in range(2))
        return lambda: torch._int_mm(left, right)
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    return lambda: torch.mm(a, b, out=out)


def _bandwidth(device: torch.device, level: str, budget_s: float) -> MeasuredRoof:
    """The best rate of reading and writing tensors of a size, in bytes a second."""
    if level == "cache":
        places = CACHED_BYTES["cpu" if device.type == "cpu" else "accelerator"]
        sizes = [size * (torch.get_num_threads() if device.type == "cpu" else 1) for size in places]
    else:
        sizes = [_beyond_the_caches(device)]
    best, text, held, spread = 0.0, "", 0, 0.0
    for size in sizes:
        for name, kernel, passes in _streams(device, size):
            found = _rounds(device, kernel, budget_s=budget_s / len(sizes))
            if passes * size / found.best_s > best:
                best, spread = passes * size / found.best_s, found.spread
                text, held = f"fp32 {name} over tensors of {_mib(size)} MiB", size
    text += f", best of several{_threads(device)}"
    return MeasuredRoof("memory", None, level, None, best, text, datetime.now(UTC), held, spread)


def _streams(device: torch.device, size: int) -> Iterator[tuple[str, Callable[[], Any], int]]:
    """Kernels that do little but move tensors of so many bytes, and how many of those each moves."""
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    rows = source[: source.numel() // 1024 * 1024].view(-1, 1024)
    vector = torch.ones(1024, device=device)
    yield "copy", lambda: target.copy_(source), 2
    yield "addition", lambda: torch.add(source, target, out=target), 3
    yield "sum", source.sum, 1
    yield "matrix-vector product", lambda: torch.mv(rows, vector), 1


def _beyond_the_caches(device: torch.device) -> int:
    caches = cache_bytes(device)
    if caches is None:
        return MEMORY_BYTES if device.type == "cpu" else 4 * MEMORY_BYTES
    return max(LEAST_MEMORY_BYTES, 1 << math.ceil(math.log2(4 * caches)))


def _threads(device: torch.device) -> str:
    return f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""


def _mib(size: int) -> str:
    return f"{size / 2**20:g}"


def _rounds(
    device: torch.device, kernel: Callable[[], Any], rounds: int = ROUNDS, budget_s: float = MEASURE_S
) -> _Rounds:
    """Seconds of a call, after one that is not counted."""

    def timed(calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            kernel()
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return (time.perf_counter() - begin) / calls

    with torch.inference_mode():
        timed(1)
        calls = min(max(round(_SHORTEST_S / timed(1)), 1), 64)
        # A few rounds, and more where they are short: on a busy machine one of many meets no other work.
        end = time.perf_counter() + budget_s
        seen = [timed(calls) for _ in range(rounds)]
        while time.perf_counter() < end:
            seen.append(timed(calls))
    return _Rounds(min(seen), statistics.median(seen) / min(seen) - 1)
