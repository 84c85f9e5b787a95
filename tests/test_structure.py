"""The house rules: who may import whom, and what stays out of where."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "roofleet_proto": "proto",
    "roofleet_analysis": "analysis",
    "roofleet_agent": "agent",
    "roofleet_collector": "collector",
    "roofleet_dashboard": "dashboard",
    "roofleet": "cli",
}
MAY_IMPORT = {
    "roofleet_proto": set(),
    "roofleet_analysis": {"roofleet_proto"},
    "roofleet_agent": {"roofleet_proto"},
    "roofleet_collector": {"roofleet_proto", "roofleet_analysis"},
    "roofleet_dashboard": {"roofleet_proto", "roofleet_analysis"},
    "roofleet": set(PACKAGES),
}


def _imports(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _files(package: str) -> list[Path]:
    return sorted((ROOT / PACKAGES[package] / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_it_may(package: str) -> None:
    """Agent, collector and dashboard never import one another; only the command line composes them."""
    allowed = MAY_IMPORT[package] | {package}
    for file in _files(package):
        ours = {name.split(".")[0] for name in _imports(file)} & set(PACKAGES)
        assert ours <= allowed, f"{file.relative_to(ROOT)} imports {sorted(ours - allowed)}"


@pytest.mark.parametrize("package", sorted(set(PACKAGES) - {"roofleet_proto"}))
def test_protobuf_stops_at_the_codec(package: str) -> None:
    """No file outside proto/ imports generated code or protobuf."""
    for file in _files(package):
        assert not [
            n for n in _imports(file) if "_pb2" in n.split("grpc_health")[0] or "google.protobuf" in n
        ], file


def test_only_the_store_knows_duckdb() -> None:
    """Nothing outside the store package imports duckdb."""
    for package in PACKAGES:
        for file in _files(package):
            if "store" not in file.parts:
                assert "duckdb" not in _imports(file), file.relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_says_what_it_is(package: str) -> None:
    """The first line of a file's docstring says what the file is."""
    for file in _files(package):
        if "_pb2" in file.name:
            continue
        doc = ast.get_docstring(ast.parse(file.read_text()))
        assert doc, f"{file.relative_to(ROOT)} has no docstring"
        assert doc.splitlines()[0].strip(), file.relative_to(ROOT)


def test_every_test_says_what_is_true() -> None:
    """The list of tests reads as the specification: each has a sentence."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                assert ast.get_docstring(node), f"{file.relative_to(ROOT)}: {node.name}"


def test_no_test_asserts_a_time_or_starts_a_process_by_itself() -> None:
    """How long something takes is the machine's; what is started by tests/processes.py is ended by it."""
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = {inner.attr for inner in ast.walk(node) if isinstance(inner, ast.Attribute)}
            if isinstance(node, ast.Assert):
                assert not names & {"monotonic", "perf_counter"}, f"{file.relative_to(ROOT)}:{node.lineno}"
            if isinstance(node, ast.Call):
                by_hand = isinstance(node.func, ast.Attribute) and node.func.attr == "Popen"
                assert not by_hand, f"{file.relative_to(ROOT)}:{node.lineno}"
