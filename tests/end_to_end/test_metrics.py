"""What Prometheus reads of a real collector and a real agent."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.processes import running
from tests.support import collector, eventually, free_port


def read(port: int) -> dict[str, float]:
    """Name and labels of each sample, and its value; empty while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return {}
    return {
        "|".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.slow
def test_rows_and_agents_are_counted_on_both_sides(tmp_path: Path) -> None:
    """What an agent sends is counted where it arrives, and nothing waits; who goes is no longer attached."""
    at, mine = free_port(), free_port()
    with collector(tmp_path / "data", "--metrics", f"127.0.0.1:{at}") as there:
        command = ("-m", "roofleet", "agent", "--collector", there.grpc, "--data", str(tmp_path / "agent"))
        with running(*command, "--metrics", f"127.0.0.1:{mine}") as agent:
            eventually(lambda: read(at).get("roofleet_collector_rows_total|readings", 0) >= 1)
            eventually(lambda: read(mine).get("roofleet_agent_attached") == 1)
            found = read(at)
            assert found["roofleet_collector_agents"] == 1
            assert found["roofleet_collector_can_store"] == 1
            assert found["roofleet_collector_rows_total|hosts"] == 1
            assert found["roofleet_collector_answer_seconds_count"] >= 3
            assert "roofleet_agent_waiting_bytes" in read(mine)
            agent.terminate()
            agent.wait(60)
        eventually(lambda: read(at).get("roofleet_collector_agents") == 0)
