"""Matrix FLOPs as several tools count them, over the closed form: 1 is right.

The models are small, of shapes where the answer can be written down: attention through SDPA, the same model
with int8 dynamic quantisation, and a mixture of experts with grouped products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.figure import Figure
from benchmarks.silence import silence
from roofleet_agent.passes.tracing import op_rows, trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.variants import parse
from roofleet_agent.workload import ModelRequest, Workload
from roofleet_analysis.costs import cost_of
from roofleet_analysis.costs.rows import op_of

TOKENS = 64
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 4,
    "hidden_size": 256,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "intermediate_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 256,
    "architectures": ["LlamaForCausalLM"],
}
MIXTRAL = {
    **LLAMA,
    "model_type": "mixtral",
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "architectures": ["MixtralForCausalLM"],
}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "SDPA": (LLAMA, "base"),
    "int8-dynamic": (LLAMA, "int8-dynamic"),
    "grouped experts": (MIXTRAL, "base"),
}


def closed_form(config: dict[str, Any]) -> int:
    """Matrix FLOPs of a prefill of TOKENS tokens with the last position's logits, attention dense."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv, d = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    projections = hidden * (heads * d) * 2 + hidden * (kv * d) * 2  # q and output; keys and values
    attention = 2 * TOKENS * heads * d  # scores and their use
    experts = config.get("num_experts_per_tok", 1)
    router = hidden * config.get("num_local_experts", 0)
    mlp = experts * 3 * hidden * inner + router
    head = hidden * config["vocab_size"]
    return 2 * (TOKENS * config["num_hidden_layers"] * (projections + attention + mlp) + head)


def measure() -> list[Figure]:
    """Each tool's count over the closed form, by case; nan where the tool fails."""
    figures = []
    for case, (config, variant) in CASES.items():
        truth = closed_form(config)
        request = ModelRequest("counted", "catalog", "random", "generate", config)
        workload = Workload(prompt_tokens=TOKENS, new_tokens=1, variant=parse(variant))
        engine = find_engine(request)
        traced = trace_phases(engine, request, "fp32", workload).phases["prefill"]
        costs = [cost_of(op_of(row)) for row in op_rows("prefill", traced)]
        ours = sum(cost.matmul_flops for cost in costs if cost is not None)
        figures.append(Figure("counts", f"Roofleet, {case}", ours / truth, goal=1.0))
        figures.append(Figure("counts", f"Roofleet, {case}", ours / truth, goal=1.0, at_most=False))
        session = engine.load(request, torch.device("cpu"), "fp32", workload)
        for name, count in (("FlopCounterMode", _flop_counter), ("calflops", _calflops)):
            with silence():
                try:
                    share = count(session.module, session.single("prefill").call) / truth
                except Exception:  # a peer that fails on a model has no figure for it
                    share = float("nan")
            figures.append(Figure("counts", f"{name}, {case}", share))
        session.close()
    return figures


def _flop_counter(module: Any, call: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _calflops(module: Any, call: Callable[[], Any]) -> int:
    from calflops.calculate_pipline import CalFlopsPipline

    pipeline = CalFlopsPipline(module, False, 2.0)
    pipeline.start_flops_calculate(ignore_list=None)
    try:
        call()
        return 2 * int(pipeline.get_total_macs())
    finally:
        pipeline.end_flops_calculate()
