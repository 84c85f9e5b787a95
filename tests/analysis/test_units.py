"""The one formatting module: base units in, text with a unit out."""

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofleet_analysis import units

BY_VALUE = [
    units.time_text, units.flops_text, units.traffic_text, units.bandwidth_text, units.capacity_text,
    units.count_text, units.percent_text, units.overhead_text, units.ratio_text, units.intensity_text,
    units.power_text, units.energy_text, units.clock_text, units.temperature_text, units.ago_text,
    units.exact_text,
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.time_text(34_173_816), "34.2 ms"),
        (units.time_text(0), "0 ns"),
        (units.workload_text(2, 128, 4), "batch 2, 128 prompt tokens, 4 new tokens"),
        (units.workload_text(8, 0, 0), "batch 8"),
        (units.time_text(999), "999 ns"),
        (units.time_text(999_700), "1.00 ms"),
        (units.time_text(45_300), "45.3 µs"),
        (units.time_text(90e9), "90 s"),
        (units.time_text(150e9), "2.50 min"),
        (units.time_text(9e12), "2.50 h"),
        (units.flops_text(22_348_431_360), "22.3 GFLOP"),
        (units.rate_text(196_002_855_092.0, "FLOP/s"), "196 GFLOP/s"),
        (units.rate_text(25.6306, "token/s"), "25.6 token/s"),
        (units.rate_text(0.05, "token/s"), "0.0500 token/s"),
        (units.traffic_text(509_295_980), "509 MB"),
        (units.bandwidth_text(3.35e12), "3.35 TB/s"),
        (units.capacity_text(80 * 2**30), "80 GiB"),
        (units.capacity_text(515_849_216), "492 MiB"),
        (units.capacity_text(1023), "1,023 B"),
        (units.count_text(235), "235"),
        (units.count_text(9999), "9,999"),
        (units.count_text(124_439_808), "124 M"),
        (units.percent_text(0.4092839), "40.9 %"),
        (units.percent_text(1.0), "100 %"),
        (units.percent_text(0.0), "0 %"),
        (units.percent_text(0.0002), "< 0.1 %"),
        (units.overhead_text(1.0238655), "+2.4 %"),
        (units.overhead_text(0.997), "−0.3 %"),
        (units.overhead_text(1.0), "+0.0 %"),
        (units.ratio_text(1.0238655), "1.02 ×"),
        (units.intensity_text(22.32867), "22.3 FLOP/byte"),
        (units.power_text(312.4), "312 W"),
        (units.energy_text(0.0121), "12.1 mJ"),
        (units.clock_text(2_596_150_000.0), "2.60 GHz"),
        (units.temperature_text(53.6), "54 °C"),
        (units.ago_text(3.2), "3 s ago"),
        (units.ago_text(-1), "0 s ago"),
        (units.ago_text(300), "5 min ago"),
        (units.ago_text(3 * 3600), "3 h ago"),
        (units.ago_text(9 * 86_400), "9 days ago"),
        (units.exact_text(34_173_816, "ns"), "34,173,816 ns"),
        (units.exact_text(2**53 + 1, "B"), "9,007,199,254,740,993 B"),
        (units.exact_text(0.4968198511, "FLOP/byte"), "0.496820 FLOP/byte"),
        (units.exact_text(7_404_158_581.53, "FLOP/s"), "7,404,158,582 FLOP/s"),
        (units.exact_text(0.00001234567), "1.235e-05"),
        (units.tick_text(1e9, "FLOP/s"), "1 GFLOP/s"),
        (units.tick_text(0.1, ""), "100 m"),
    ],
)
def test_a_value_reads_as_expected(text: str, expected: str) -> None:
    """Each kind of figure has three digits and its customary unit."""
    assert text == expected


@pytest.mark.parametrize("function", BY_VALUE, ids=lambda f: f.__name__)
@pytest.mark.parametrize("unknown", [None, math.nan, math.inf])
def test_unknown_is_a_dash(function, unknown) -> None:
    """What is not known is a dash and never 0."""
    assert function(unknown) == units.UNKNOWN


def test_bandwidth_is_decimal_and_capacity_binary() -> None:
    """The same number of bytes is 7.4 % apart between a rate and a capacity."""
    assert units.bandwidth_text(2**30) == "1.07 GB/s"
    assert units.capacity_text(2**30) == "1 GiB"


def test_a_moment_is_in_utc() -> None:
    """An instant reads the same whatever zone it came in."""
    at = datetime(2026, 3, 1, 14, 5, 59, tzinfo=UTC)
    assert units.moment_text(at) == "2026-03-01 14:05 UTC"
    assert units.moment_text(at.astimezone(timezone(timedelta(hours=9)))) == "2026-03-01 14:05 UTC"
    assert units.moment_text(at.replace(tzinfo=None)) == "2026-03-01 14:05 UTC"
    assert units.moment_text(None) == units.UNKNOWN


def test_a_column_is_in_the_unit_of_its_head() -> None:
    """Values of a column are plain numbers in the unit that its head names, or None."""
    assert units.in_unit(34_173_816, "ms") == 34.17
    assert units.in_unit(2**30, "GiB") == 1.0
    assert units.in_unit(0.5, "%") == 50.0
    assert units.in_unit(None, "ms") is None
    with pytest.raises(KeyError):
        units.in_unit(1, "furlong")


@given(st.floats(min_value=1e-3, max_value=1e20))
def test_no_text_has_an_exponent(value: float) -> None:
    """No figure of a usual size is shown as 1e+06."""
    for function in (units.time_text, units.flops_text, units.capacity_text, units.exact_text):
        text = function(value)
        assert "e" not in text.split()[0], text


@given(st.integers(min_value=1, max_value=10**18))
def test_a_rate_keeps_three_digits(value: int) -> None:
    """Reading the text back gives the value to within half of its last digit."""
    number, unit = units.rate_text(value, "B").split()
    scale = 1000.0 ** ["B", "kB", "MB", "GB", "TB", "PB", "EB"].index(unit)
    assert float(number.replace(",", "")) * scale == pytest.approx(value, rel=0.0051)


def test_a_utilisation_says_what_is_not_right_with_it() -> None:
    """Above the roof it is marked, and where work is not known it is the least."""
    assert units.utilization_text(0.312) == "31.2 %"
    assert units.utilization_text(0.312, True) == "at least 31.2 %"
    assert units.utilization_text(3.99) == "399 % (!)"
    assert units.utilization_text(None, True) == units.UNKNOWN


def test_dtypes_are_told_with_their_shares_where_there_are_several() -> None:
    """One alone has no share, and none is empty."""
    assert units.dtypes_text('{"bf16":0.9,"fp32":0.1}') == "bf16 90 %, fp32 10 %"
    assert units.dtypes_text('{"fp32":1.0}') == "fp32"
    assert units.dtypes_text(None) == ""
