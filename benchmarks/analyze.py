"""Time and memory of `roofleet analyze` on the largest models of the catalogue, as whole processes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.figure import Figure

ROUNDS = 3
GOALS = {"Llama-3.1-405B": 5.0, "DeepSeek-V3": 3.0}
"""Seconds of the whole process on two quiet cores, by model."""
IMPORT = "import torch, transformers"


@dataclass(frozen=True)
class _Process:
    seconds: float
    processor_s: float
    peak_bytes: int


def measure() -> list[Figure]:
    """Medians with a prompt of 2,048 tokens, start of the interpreter included, beside the bare import.

    Processor time, that of user and system together, and its ratio to the import's say more than the seconds
    where other work runs beside.
    """
    commands = {IMPORT: ["-c", IMPORT]} | {
        model: ["-m", "roofleet", "analyze", model, "--prompt-tokens", "2048", "--json"] for model in GOALS
    }
    runs: dict[str, list[_Process]] = {name: [] for name in commands}
    for _ in range(ROUNDS):  # in turns: a machine that slows down slows all alike
        for name, command in commands.items():
            runs[name].append(_run([sys.executable, *command]))
    bare = statistics.median(run.processor_s for run in runs[IMPORT])
    figures = []
    for name, found in runs.items():
        processor_s = statistics.median(run.processor_s for run in found)
        seconds = statistics.median(run.seconds for run in found)
        figures += [
            Figure("analyze", f"{name}, whole process", seconds, "s", goal=GOALS.get(name)),
            Figure("analyze", f"{name}, processor time", processor_s, "s"),
        ]
        if name in GOALS:
            peak = max(run.peak_bytes for run in found)
            figures += [
                Figure("analyze", f"{name}, processor time over that of the bare import", processor_s / bare),
                Figure("analyze", f"{name}, peak memory", peak / 2**30, "GiB", goal=1),
            ]
    return figures


def _run(command: list[str]) -> _Process:
    """Runs a command to its end; CalledProcessError if it fails."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return _Process(seconds, used.ru_utime + used.ru_stime, peak)
