"""What is true of the hardware catalogue: names find devices, and their roofs are dense and have a source."""

import re

import pytest

from roofleet_analysis.catalogs.hardware import (
    Hardware,
    find_hardware,
    hardware,
    match_device,
    nearest_hardware,
)

EVERY_DEVICE = pytest.mark.parametrize("entry", hardware(), ids=lambda entry: entry.name)

DTYPES = {"fp64", "fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4"}
GIB = 2**30


def device(name: str) -> Hardware:
    found = find_hardware(name)
    assert found is not None, f"{name} is not in the catalogue"
    return found


def peak(name: str, dtype: str) -> float | None:
    """Operations per second of the roof that torch can reach."""
    roof = device(name).compute_roof(dtype)
    return None if roof is None else roof.flops_per_s


# ---------------------------------------------------------------------- the entries


def test_the_catalogue_holds_gpus_tpus_and_processors() -> None:
    """All three kinds of device are there, from four vendors."""
    assert {entry.kind for entry in hardware()} == {"gpu", "tpu", "cpu"}
    assert {entry.vendor for entry in hardware()} == {"NVIDIA", "AMD", "Google", "Intel"}


def test_no_two_devices_answer_to_one_name() -> None:
    """A name or alias belongs to one device only, whatever its case, spaces and hyphens."""
    keys = [
        re.sub(r"[\s_-]", "", name.casefold())
        for entry in hardware()
        for name in {entry.name, *entry.aliases}
    ]
    assert len(keys) == len(set(keys))


@EVERY_DEVICE
def test_every_number_has_a_source(entry: Hardware) -> None:
    """Each compute roof and each bandwidth carries the address of its source."""
    assert entry.memory_source.startswith("https://")
    assert entry.compute
    assert all(roof.source.startswith("https://") for roof in entry.compute)


@EVERY_DEVICE
def test_every_number_is_in_base_units(entry: Hardware) -> None:
    """Capacities are whole GiB; bandwidths and peaks have the size of bytes and operations per second."""
    assert entry.memory_bytes % GIB == 0
    assert 100e9 < entry.memory_bytes_per_s < 20e12
    assert all(1e12 < roof.flops_per_s < 20e15 for roof in entry.compute)
    assert entry.tdp_w is None or 50 < entry.tdp_w < 2000


@EVERY_DEVICE
def test_every_roof_speaks_the_products_words(entry: Hardware) -> None:
    """Dtypes, units and memory levels are the words used in the rest of the product."""
    assert {roof.dtype for roof in entry.compute} <= DTYPES
    assert {roof.unit for roof in entry.compute} <= {"tensor", "vector"}
    assert entry.memory_level in {"hbm", "gddr6", "gddr6x", "ddr5"}


# ---------------------------------------------------------------------- the figures


@pytest.mark.parametrize(
    ("name", "dtype", "flops_per_s"),
    [
        ("h100-sxm", "bf16", 989.4e12),
        ("h100-sxm", "fp8", 1978.9e12),
        ("h100-pcie", "bf16", 756e12),
        ("h200", "fp16", 1979e12 / 2),
        ("b200", "bf16", 4500e12 / 2),
        ("a100-80gb-sxm", "bf16", 312e12),
        ("l4", "bf16", 242e12 / 2),
        ("l4", "int8", 485e12 / 2),
        ("l40s", "bf16", 362.05e12),
        ("t4", "fp16", 65e12),
        ("v100", "fp16", 125e12),
        ("mi300x", "bf16", 1307.4e12),
        ("tpu-v4", "bf16", 275e12),
        ("tpu-v5e", "bf16", 197e12),
        ("tpu-v5p", "bf16", 459e12),
        ("tpu-v6e", "bf16", 918e12),
    ],
)
def test_peaks_are_dense(name: str, dtype: str, flops_per_s: float) -> None:
    """The roof is the dense peak: half of the figure where the vendor prints only the sparse one."""
    assert peak(name, dtype) == flops_per_s


@pytest.mark.parametrize(
    ("name", "bytes_per_s"),
    [
        ("h100-sxm", 3.35e12),
        ("h200", 4.8e12),
        ("a100-80gb-sxm", 2.039e12),
        ("a100-80gb-pcie", 1.935e12),
        ("a100-40gb-pcie", 1.555e12),
        ("l4", 300e9),
        ("rtx-4090", 1.008e12),
        ("mi300x", 5.3e12),
        ("tpu-v5e", 819e9),
    ],
)
def test_bandwidths_are_decimal(name: str, bytes_per_s: float) -> None:
    """Bandwidth is what the vendor prints, with a GB/s of 10^9 bytes per second."""
    assert device(name).memory_bytes_per_s == bytes_per_s


def test_capacities_are_binary() -> None:
    """An "80 GB" GPU has 80 GiB, as its driver reports it."""
    assert device("h100-sxm").memory_bytes == 80 * GIB
    assert device("tpu-v4").memory_bytes == 32 * GIB


def test_torch_sums_half_precision_in_fp32() -> None:
    """The RTX 4090 does 330.3 T with fp16 accumulation, but torch reaches only the 165.2 T with fp32."""
    fp16 = [roof for roof in device("rtx-4090").compute if roof.dtype == "fp16"]
    assert {roof.accumulate: roof.flops_per_s for roof in fp16} == {"fp16": 330.3e12, "fp32": 165.2e12}
    assert peak("rtx-4090", "fp16") == 165.2e12
    assert peak("rtx-4090", "fp8") == 330.3e12


def test_fp32_is_not_tf32() -> None:
    """True fp32 on an A100 is 19.5 T; tf32 is its own dtype with its own roof."""
    assert peak("a100", "fp32") == 19.5e12
    assert peak("a100", "tf32") == 156e12


def test_the_fastest_unit_is_the_roof() -> None:
    """Where vector lanes and matrix units both do a dtype, the roof is the faster one."""
    roof = device("h100-sxm").compute_roof("fp64")
    assert roof is not None
    assert (roof.unit, roof.flops_per_s) == ("tensor", 66.9e12)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("t4", "bf16"),
        ("v100", "bf16"),
        ("a100", "fp8"),
        ("tpu-v5e", "fp32"),
        ("epyc-9654", "fp16"),
        ("l4", "?"),
    ],
)
def test_a_dtype_that_a_device_does_not_do_has_no_roof(name: str, dtype: str) -> None:
    """A missing roof is None, never zero and never another dtype's."""
    assert peak(name, dtype) is None


def test_processor_peaks_are_cores_times_clock_times_operations() -> None:
    """A processor's roof is derived: cores x clock x operations of one core in one cycle."""
    # 96 cores * 3.55 GHz * (2 pipes * 8 lanes * 2 operations) = 10.9 T
    assert peak("epyc-9654", "fp32") == 96 * 3_550_000_000 * 32
    # 56 cores * 3.0 GHz * (2 pipes * 16 lanes * 2 operations) = 10.8 T
    assert peak("xeon-8480+", "fp32") == 56 * 3_000_000_000 * 64
    # The matrix unit: 56 cores * 3.0 GHz * 1,024 operations = 172 T
    assert peak("xeon-8480+", "bf16") == 56 * 3_000_000_000 * 1024


def test_processor_bandwidth_is_channels_times_transfers() -> None:
    """A processor's bandwidth is derived: channels x transfers per second x 8 bytes."""
    assert device("epyc-9654").memory_bytes_per_s == 12 * 4_800_000_000 * 8  # 460.8 GB/s
    assert device("xeon-8480+").memory_bytes_per_s == 8 * 4_800_000_000 * 8  # 307.2 GB/s


# ---------------------------------------------------------------------- finding


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("h100-sxm", "h100-sxm"),
        ("H100 SXM", "h100-sxm"),
        ("h100_sxm", "h100-sxm"),
        ("h100", "h100-sxm"),
        ("A100", "a100-80gb-sxm"),
        ("v100", "v100-sxm2-16gb"),
        ("RTX 4090", "rtx-4090"),
        ("RTX A6000", "a6000"),
        ("trillium", "tpu-v6e"),
        ("8480+", "xeon-8480+"),
    ],
)
def test_a_device_is_found_by_name_or_alias(asked: str, found: str) -> None:
    """Case, spaces, hyphens and underscores do not matter."""
    assert device(asked).name == found


def test_an_unknown_device_is_none() -> None:
    """A name that is not in the catalogue finds nothing."""
    assert find_hardware("h1000") is None
    assert find_hardware("") is None


def test_a_misspelt_device_suggests_the_nearest() -> None:
    """The first suggestion for a name with a slip is the device that was meant; nonsense suggests nothing."""
    assert nearest_hardware("h100-smx")[0] == "h100-sxm"
    assert nearest_hardware("tpu v6")[0] == "tpu-v6e"
    assert len(nearest_hardware("a100", n=2)) == 2
    assert nearest_hardware("qqqqqq") == []


@pytest.mark.parametrize(
    ("reported", "found"),
    [
        ("NVIDIA B200", "b200"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA A100-SXM4-80GB", "a100-80gb-sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb-sxm"),
        ("A100-SXM4-40GB", "a100-40gb-sxm"),  # drivers before 465 leave out the vendor
        ("NVIDIA A100 80GB PCIe", "a100-80gb-pcie"),
        ("NVIDIA A100-PCIE-40GB", "a100-40gb-pcie"),
        ("NVIDIA RTX A6000", "a6000"),
        ("NVIDIA L4", "l4"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("Tesla T4", "t4"),
        ("Tesla V100-SXM2-16GB", "v100-sxm2-16gb"),
        ("Tesla V100-SXM2-32GB", "v100-sxm2-32gb"),
        ("AMD Instinct MI300X", "mi300x"),
        ("AMD Instinct MI300X OAM", "mi300x"),
        ("TPU v4", "tpu-v4"),
        ("TPU v5 lite", "tpu-v5e"),
        ("TPU v5", "tpu-v5p"),
        ("TPU v5p", "tpu-v5p"),
        ("TPU v6 lite", "tpu-v6e"),
        ("AMD EPYC 9654 96-Core Processor", "epyc-9654"),
        ("AMD EPYC 9654P 96-Core Processor", "epyc-9654"),
        ("Intel(R) Xeon(R) Platinum 8480+", "xeon-8480+"),
        ("INTEL(R) XEON(R) PLATINUM 8480+  ", "xeon-8480+"),
    ],
)
def test_the_name_that_a_driver_reports_finds_the_device(reported: str, found: str) -> None:
    """A real device, under the name its driver gives it, maps to its entry."""
    matched = match_device(reported)
    assert matched is not None
    assert matched.name == found


@pytest.mark.parametrize(
    "reported",
    [
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 NVL",
        "NVIDIA H200 NVL",
        "NVIDIA L40",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA RTX 6000 Ada Generation",
        "AMD EPYC 7763 64-Core Processor",
        "TPU v4 lite",
        "",
    ],
)
def test_a_sibling_or_a_slice_is_not_the_device(reported: str) -> None:
    """Another part of the family, or a fraction of a GPU, never gets the roofs of the whole."""
    assert match_device(reported) is None


@EVERY_DEVICE
def test_every_device_can_be_matched(entry: Hardware) -> None:
    """Each entry has patterns, and each pattern is a valid regular expression."""
    assert entry.device_patterns
    for pattern in entry.device_patterns:
        re.compile(pattern)


# ---------------------------------------------------------------------- what a program can have


@EVERY_DEVICE
def test_what_a_program_can_have_has_a_source_or_is_called_an_estimate(entry: Hardware) -> None:
    """It is less than the nominal, most of it all the same, and reported by somebody or said to be estimated;
    what is offered to tensors leaves a reserve beside them."""
    assert entry.memory_bytes * 0.9 < entry.usable_bytes <= entry.memory_bytes
    assert (entry.usable_bytes < entry.memory_bytes) == (entry.kind != "cpu")
    assert entry.usable_is_estimate or (entry.usable_source or "").startswith("https://")
    assert 0 < entry.reserve_bytes == entry.usable_bytes - entry.offered_bytes


@pytest.mark.parametrize(
    ("name", "gib"), [("t4", 14.56), ("l40s", 44.42), ("h100-sxm", 79.11), ("rtx-4090", 23.64)]
)
def test_what_torch_reports_is_what_can_be_had(name: str, gib: float) -> None:
    """A T4 of "16 GB" has 14.56 GiB for a program, an L40S of "48 GB" 44.42."""
    assert device(name).usable_bytes == pytest.approx(gib * GIB, rel=1e-6)
