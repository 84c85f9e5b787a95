"""The hardware catalogue: datasheet roofs of known devices, read from `hardware.toml`.

All peaks are dense, and each carries the address of its source. Pure data, standard library only.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from roofleet_analysis.catalogs import nearest_names

__all__ = ["ComputeRoof", "Hardware", "find_hardware", "hardware", "match_device", "nearest_hardware"]

# The type in which torch sums products of each dtype. A roof with another accumulator is out of its reach.
_TORCH_ACCUMULATES = {
    "fp64": "fp64",
    "fp32": "fp32",
    "tf32": "fp32",
    "fp16": "fp32",
    "bf16": "fp32",
    "fp8": "fp32",
    "int8": "int32",
    "int4": "int32",
}

# What a process takes of a device beside its tensors.
# gpu: 0.5 GiB for the context with its kernels and libraries, as logs of full devices show it (what the
#   process has in use less what torch reserved: 0.41 GiB on L40S, 0.44 on RTX 4090, 0.49 on L40), 0.25 GiB
#   for blocks that torch's allocator holds and cannot use (0.26 GiB on the T4 of `usable_source`).
# tpu: XLA takes its own reserve off before it tells its limit; 0.25 GiB for fragmentation.
# cpu: 1 GiB for the operating system, Python and torch's libraries.
_RESERVE_BYTES = {"gpu": 3 * 2**28, "tpu": 2**28, "cpu": 2**30}


@dataclass(frozen=True, slots=True)
class ComputeRoof:
    """The most operations per second that a device does in one dtype, without sparsity."""

    dtype: str
    """fp64, fp32, tf32, fp16, bf16, fp8, int8 or int4. `fp32` is true fp32, never tf32."""
    flops_per_s: float
    """Operations per second; a multiply-add is two."""
    unit: Literal["tensor", "vector"]
    """The part of the chip: matrix units or vector lanes."""
    accumulate: str | None
    """The dtype in which products are summed, where the rate depends on it; else None."""
    source: str
    """Address of the datasheet, or of the figures from which the roof is derived."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One device of the catalogue: a GPU, a TPU chip or a processor socket."""

    name: str
    """The catalogue's name, in lower case with hyphens."""
    aliases: tuple[str, ...]
    title: str
    """The vendor's full name of the part."""
    vendor: str
    kind: Literal["gpu", "tpu", "cpu"]
    memory_bytes: int
    """Nominal capacity. For a processor it is the most that a socket supports, not what a host has."""
    usable_bytes: int
    """What a program can have of it: what torch or XLA reports as the total, less than the nominal by what
    error correction and the driver take."""
    usable_source: str | None
    """Address of the report, or of the figure from which it is estimated; None where there is neither."""
    usable_is_estimate: bool
    """Whether it is worked out by the rule in the head of the file rather than reported."""
    memory_level: str
    """The kind of memory: hbm, gddr6, gddr6x or ddr5."""
    memory_bytes_per_s: float
    """Peak bandwidth of that memory."""
    memory_source: str
    """Address of the datasheet that states the bandwidth, or the figures from which it is derived."""
    tdp_w: float | None
    """Thermal design power in watts; None if the vendor states none."""
    compute: tuple[ComputeRoof, ...]
    device_patterns: tuple[str, ...]
    """Regular expressions for the whole of the name that a driver reports, in any case."""

    @property
    def reserve_bytes(self) -> int:
        """What is kept free of it for the process's context and its allocator."""
        return _RESERVE_BYTES[self.kind]

    @property
    def offered_bytes(self) -> int:
        """What is left for tensors: the usable memory less the reserve."""
        return self.usable_bytes - self.reserve_bytes

    def compute_roof(self, dtype: str) -> ComputeRoof | None:
        """The fastest dense roof that torch can reach in `dtype`, or None if the device states none.

        torch sums products of fp16, bf16 and fp8 in fp32, so a faster roof with fp16 accumulation is passed
        over.
        """
        usable = [
            roof
            for roof in self.compute
            if roof.dtype == dtype and roof.accumulate in (None, _TORCH_ACCUMULATES.get(dtype))
        ]
        return max(usable, key=lambda roof: roof.flops_per_s, default=None)


@cache
def hardware() -> tuple[Hardware, ...]:
    """All devices of the catalogue, in the order of the file."""
    text = resources.files(__package__).joinpath("hardware.toml").read_text(encoding="utf-8")
    return tuple(_read(raw) for raw in tomllib.loads(text)["hardware"])


def find_hardware(name: str) -> Hardware | None:
    """The device with this name or alias, or None.

    Case, spaces, hyphens and underscores do not matter: `H100 SXM`, `h100_sxm` and `h100-sxm` are one.
    """
    return _by_key().get(_key(name))


def match_device(device_name: str) -> Hardware | None:
    """The device that a driver reports under this name, as in `NVIDIA H100 80GB HBM3`, or None.

    The whole name must match, so that a slice of a GPU, a laptop version or a sibling (`NVIDIA L40` is not
    `NVIDIA L4`) never gets the roofs of another part.
    """
    reported = " ".join(device_name.split())
    for entry in hardware():
        if any(re.fullmatch(pattern, reported, re.IGNORECASE) for pattern in entry.device_patterns):
            return entry
    return None


def nearest_hardware(name: str, n: int = 3) -> list[str]:
    """Names of at most `n` devices that look like `name`, best first, for a "did you mean" message.

    Empty if nothing looks alike.
    """
    return nearest_names(_key(name), {key: entry.name for key, entry in _by_key().items()}, n)


@cache
def _by_key() -> dict[str, Hardware]:
    return {_key(name): entry for entry in hardware() for name in (entry.name, *entry.aliases)}


def _key(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name.casefold())


def _read(raw: dict[str, Any]) -> Hardware:
    """One entry from its table in the file."""
    return Hardware(
        name=raw["name"],
        aliases=tuple(raw["aliases"]),
        title=raw["title"],
        vendor=raw["vendor"],
        kind=raw["kind"],
        memory_bytes=raw["memory_bytes"],
        usable_bytes=raw["usable_bytes"],
        usable_source=raw.get("usable_source"),
        usable_is_estimate=raw.get("usable_is_estimate", False),
        memory_level=raw["memory_level"],
        memory_bytes_per_s=_memory_bytes_per_s(raw),
        memory_source=raw.get("memory_source", raw["source"]),
        tdp_w=raw.get("tdp_w"),
        compute=tuple(
            ComputeRoof(
                dtype=roof["dtype"],
                flops_per_s=_flops_per_s(roof, raw),
                unit=roof["unit"],
                accumulate=roof.get("accumulate"),
                source=roof.get("source", raw["source"]),
            )
            for roof in raw["compute"]
        ),
        device_patterns=tuple(raw["device_patterns"]),
    )


def _memory_bytes_per_s(raw: dict[str, Any]) -> float:
    if "memory_bytes_per_s" in raw:
        return float(raw["memory_bytes_per_s"])
    memory = raw["memory_channels"]
    return float(memory["channels"] * memory["transfers_per_s"] * memory["bytes_per_transfer"])


def _flops_per_s(roof: dict[str, Any], raw: dict[str, Any]) -> float:
    if "flops_per_s" in roof:
        return float(roof["flops_per_s"])
    return float(raw["cores"] * raw["clock_hz"] * roof["operations_per_cycle"])
