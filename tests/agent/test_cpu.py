"""The CPU's energy counters, from files as the kernel shows them."""

from __future__ import annotations

from pathlib import Path

from roofleet_agent.devices.cpu import rapl_packages


def zone(folder: Path, name: str, kind: str, energy_uj: int) -> Path:
    """A counter as powercap lays it out, full at 1,000 J."""
    path = folder / name
    path.mkdir()
    (path / "name").write_text(kind + "\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text("1000000000\n")
    return path


def test_only_packages_count(tmp_path: Path) -> None:
    """Neither a package's parts nor the platform's counter, which has the packages in it, is added."""
    zone(tmp_path, "intel-rapl:0", "package-0", 5)
    zone(tmp_path, "intel-rapl:0:0", "core", 5)
    zone(tmp_path, "intel-rapl:1", "psys", 5)
    assert len(rapl_packages(tmp_path)) == 1


def test_energy_goes_on_when_the_counter_starts_again(tmp_path: Path) -> None:
    """From 999 J over the top to 2 J are 3 J, not 997 J less."""
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 999_000_000)
    package = rapl_packages(tmp_path)[0]
    assert package.read_j() == 0
    (counter / "energy_uj").write_text("2000000")
    assert package.read_j() == 3
