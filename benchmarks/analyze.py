"""Time and memory of `roofleet analyze` on the largest model of the catalogue, as a whole process."""

from __future__ import annotations

import resource
import subprocess
import sys
import time

from benchmarks.figure import Figure


def measure() -> list[Figure]:
    """Llama-3.1-405B with a prompt of 2,048 tokens, start of the interpreter included."""
    command = ["analyze", "Llama-3.1-405B", "--prompt-tokens", "2048", "--json"]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "roofleet", *command], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return [
        Figure("analyze", "Llama-3.1-405B, 2,048 tokens", seconds, "s", goal=10),
        Figure("analyze", "peak memory (largest process so far)", peak / 2**30, "GiB", goal=2),
    ]
