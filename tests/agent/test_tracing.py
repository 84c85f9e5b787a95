"""The trace: exact matrix work of published models, whatever the implementation."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tests.support import TINY_GPT2, TINY_LLAMA, request
from torch import nn

from roofleet.analyzing.analysis import analyze, phase_cost
from roofleet.naming.models import resolve
from roofleet_agent.passes.tracing import trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing import TracedOp, TracedTensor, layers_of, trace
from roofleet_agent.tracing.folding import Skipped, fold
from roofleet_agent.tracing.layers import role_of
from roofleet_agent.workload import Workload


@cache
def analysis(model: str, tokens: int, dtype: str = "fp16", attention: str = "sdpa") -> dict[str, Any]:
    """What `analyze` says of a catalogue model, batch 1, all logits."""
    workload = Workload(prompt_tokens=tokens, new_tokens=2, logits="all", attention=attention)
    return analyze(resolve(model, "random"), dtype, workload, [])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("model", "tokens", "phase", "flops"),
    [
        # 12 layers x (12 x 768^2 weights x 2 x 128 + attention 4 x 128^2 x 768) + pooler 2 x 768^2
        ("bert-base-uncased", 128, "forward", 22_348_431_360),
        # the same layers without the pooler + head 2 x 128 x 768 x 50257
        ("gpt2", 128, "prefill", 32_228_179_968),
        # 2 x 2048 x 6,607,077,376 weights + 32 x 4 x 2048^2 x 4096
        ("Llama-2-7b", 2048, "prefill", 29_261_612_187_648),
        # 2 x 6,607,077,376 weights + 32 x 4 x 2049 x 4096
        ("Llama-2-7b", 2048, "decode", 14_288_420_864),
    ],
)
def test_matrix_work_is_the_published_number_under_any_attention(
    model: str, tokens: int, phase: str, flops: int, attention: str
) -> None:
    """Eager and fused attention give the same number, and it is the one that shapes give by hand."""
    figures = analysis(model, tokens, attention=attention)["phases"][phase]
    assert figures["matmul_flops"] == flops
    assert figures["unknown_ops"] == 0


def test_llama_2_7b_has_its_published_size() -> None:
    """6,738,415,616 parameters, and 2 x 32 layers x 4096 x 2 bytes of cache a token."""
    found = analysis("Llama-2-7b", 16)
    assert found["parameters"] == 6_738_415_616
    # and two buffers of 64 rotary frequencies in fp32
    assert found["parameter_bytes"] == 2 * 6_738_415_616 + 2 * 64 * 4
    assert found["kv_bytes_per_token"] == 524_288


def test_a_decode_step_reads_the_weights_and_the_cache_once() -> None:
    """All weights but the embedding, of which one row; the cache of 2,049 tokens; one token written."""
    figures = analysis("Llama-2-7b", 2048)["phases"]["decode"]
    assert figures["weight_bytes"] == 2 * (6_738_415_616 - 32_000 * 4096 + 4096)
    assert figures["kv_bytes"] == (2049 + 1) * 524_288


def test_last_logits_save_the_head_for_the_other_positions() -> None:
    """Prefill with the last position's logits costs 2 x (tokens - 1) x hidden x vocabulary less."""
    workload = Workload(prompt_tokens=8, new_tokens=2, logits="all")
    both = []
    for logits in ("all", "last"):
        traced = trace_phases(
            find_engine(request(TINY_GPT2)),
            request(TINY_GPT2),
            "fp32",
            replace(workload, logits=logits),  # type: ignore[arg-type]
        )
        both.append(phase_cost(traced.phases["prefill"])[0].matmul_flops)
    assert both[0] - both[1] == 2 * (8 - 1) * 32 * 101


def test_the_trace_on_meta_is_the_trace_of_real_data() -> None:
    """The ops, their shapes and what their tensors are do not depend on the device."""
    engine = find_engine(request(TINY_LLAMA))
    workload = Workload(prompt_tokens=8, new_tokens=4)
    on_meta = trace_phases(engine, request(TINY_LLAMA), "fp32", workload).phases
    session = engine.load(request(TINY_LLAMA), torch.device("cpu"), "fp32", workload)
    for phase, traced in on_meta.items():
        step = session.single(phase)
        sizes = {"tokens": step.tokens, "cached_tokens": step.cache_tokens}
        real = trace(session.module, step.call, cache=session.cache, **sizes)
        assert real.ops == traced.ops
        assert real.edges == traced.edges


def test_tracing_leaves_the_model_as_it_was() -> None:
    """No hook stays, also when the model fails while it is traced."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    before = [dict(vars(module)) for module in model.modules()]
    trace(model, lambda: model(torch.randn(2, 4)))
    with pytest.raises(RuntimeError):
        trace(model, lambda: model(torch.randn(2, 5)))
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert hooks == [({}, {})] * 3
    for module, state in zip(model.modules(), before, strict=True):
        assert set(vars(module)) == set(state)


def test_every_op_belongs_to_the_layer_that_ran_it() -> None:
    """The product is in "first", the activation in "second", the addition in the model itself."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(self.first(x)) + 1

    model = Model().to("meta")
    x = torch.empty(2, 4, device="meta")
    traced = trace(model, lambda: model(x))
    assert [(op.path, op.op) for op in traced.ops] == [
        ("first", "aten.linear"),
        ("second", "aten.relu"),
        ("", "aten.add"),
    ]
    assert [(e.source_path, e.target_path, e.bytes) for e in traced.edges] == [
        ("", "first", 2 * 4 * 4),
        ("first", "second", 2 * 4 * 4),
        ("second", "", 2 * 4 * 4),
    ]


def test_what_a_model_returns_flows_out_of_it() -> None:
    """The last layer's output goes to the model itself, and a view on the way is not taken for a reader."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.last(self.first(x)[-1:])}

    model = Model().to("meta")
    x = torch.empty(3, 4, device="meta")
    edges = trace(model, lambda: model(x)).edges
    assert {(e.source_path, e.target_path, e.bytes) for e in edges} == {
        ("", "first", 3 * 4 * 4),
        ("first", "last", 1 * 4 * 4),
        ("last", "", 1 * 2 * 4),
    }


def test_a_tensor_knows_what_it_is() -> None:
    """In a decode step of a llama the projections read weights and attention reads the cache."""
    engine = find_engine(request(TINY_LLAMA))
    traces = trace_phases(engine, request(TINY_LLAMA), "fp32", Workload(1, 8, 4)).phases
    attention = [op for op in traces["decode"].ops if "attention" in op.op]
    assert [[t.role for t in op.inputs] for op in attention] == [["activation", "kv", "kv"]] * 2
    linear = [op for op in traces["decode"].ops if op.op == "aten.linear"]
    assert {op.inputs[1].role for op in linear} == {"weight"}


def test_layers_hold_every_parameter_once() -> None:
    """The layers' own parameters add up to the model's, tied ones counted once."""
    session = find_engine(request(TINY_GPT2)).load(
        request(TINY_GPT2), torch.device("meta"), "fp32", Workload(1, 8, 4)
    )
    layers = layers_of(session.module)
    assert sum(layer.parameters for layer in layers) == sum(p.numel() for p in session.module.parameters())
    by_path = {layer.path: layer for layer in layers}
    assert by_path["lm_head"].parameters == 0  # tied to the embedding
    assert by_path["transformer.h.1.attn.c_attn"].block_index == 1
    assert by_path["transformer.h.1"].role == "block"
    assert by_path["transformer.h.1.attn.c_attn"].role == "attention"
    assert by_path["transformer.wte"].role == "embedding"
    assert by_path["lm_head"].role == "head"


@pytest.mark.parametrize(
    ("path", "module_type", "is_leaf", "role"),
    [
        ("encoder.layer.0.attention.output.dense", "Linear", True, "attention"),
        ("encoder.layer.0.attention.output.LayerNorm", "LayerNorm", True, "norm"),
        ("encoder.layer.0.attention.self", "BertSdpaSelfAttention", False, "attention"),
        ("encoder.layer.0.intermediate.dense", "Linear", True, "mlp"),
        ("encoder.layer.0.output.dense", "Linear", True, "mlp"),
        ("encoder.layer.0", "BertLayer", False, "block"),
        ("pooler.dense", "Linear", True, "head"),
        ("embeddings.word_embeddings", "Embedding", True, "embedding"),
        ("model.layers.3.self_attn.q_proj", "Linear", True, "attention"),
        ("model.layers.3.self_attn.q_norm", "Qwen3RMSNorm", True, "norm"),
        ("model.layers.3.mlp.gate_proj", "Linear", True, "mlp"),
        ("model.layers.3.mlp.act_fn", "SiLUActivation", True, "activation"),
        ("model.layers.3.mlp.experts", "MixtralExperts", True, "mlp"),
        ("model.layers.3.mlp.gate", "MixtralTopKRouter", True, "router"),
        ("model.rotary_emb", "LlamaRotaryEmbedding", True, "rotary"),
        ("lm_head", "Linear", True, "head"),
        ("something", "Custom", True, "other"),
        ("", "GPT2LMHeadModel", False, "model"),
    ],
)
def test_a_layer_has_the_role_its_place_says(path: str, module_type: str, is_leaf: bool, role: str) -> None:
    """The role follows from the name and the place, in BERT's words and in Llama's."""
    assert role_of(path, module_type, is_leaf) == role


TINY_MIXTRAL = TINY_LLAMA | {
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "architectures": ["MixtralForCausalLM"],
}


def test_a_mixture_of_experts_is_costed_in_every_dtype() -> None:
    """Grouped experts are traced in bf16 only; FLOPs stay, and weights take the bytes of the dtype."""
    figures = {}
    for dtype in ("bf16", "fp32"):
        found = analyze(request(TINY_MIXTRAL, task="generate"), dtype, Workload(prompt_tokens=8), [])
        figures[dtype] = found["phases"]["decode"]
        assert found["kv_bytes_per_token"] == 2 * 2 * 16 * (2 if dtype == "bf16" else 4)
    assert figures["fp32"]["matmul_flops"] == figures["bf16"]["matmul_flops"]
    assert figures["fp32"]["weight_bytes"] == 2 * figures["bf16"]["weight_bytes"]


def test_a_sliding_window_bounds_the_cache() -> None:
    """With a window of 16 a sequence of 48 keeps 15 positions beside the one that is computed."""
    config = TINY_LLAMA | {
        "model_type": "mistral",
        "sliding_window": 16,
        "architectures": ["MistralForCausalLM"],
    }
    found = analyze(request(config, task="generate"), "fp32", Workload(prompt_tokens=40, new_tokens=8), [])
    a_token = 2 * 2 * 16 * 4  # keys and values, 2 layers, 2 heads of 8 features
    assert found["kv_bytes_per_token"] == a_token
    assert found["memory"]["kv_cache_bytes"] == 15 * a_token
    assert found["phases"]["decode"]["kv_bytes"] == (16 + 1) * a_token


@pytest.mark.parametrize("device", ["meta", "cpu"])
@pytest.mark.parametrize(("kind", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_are_one_op_with_a_cost(kind: type[nn.RNNBase], gates: int, device: str) -> None:
    """Two layers both ways over 7 positions of 3 sequences: each meets w_ih and w_hh of its gates."""
    model = kind(6, 5, num_layers=2, bidirectional=True, batch_first=True).to(device)
    traced = trace(model, lambda: model(torch.zeros(3, 7, 6, device=device)))
    cost, unknown = phase_cost(traced)
    assert unknown == []
    # the second layer's input is both directions of the first: 10
    assert cost.matmul_flops == 2 * (3 * 7) * 2 * gates * 5 * ((6 + 5) + (10 + 5))
    assert cost.weight_bytes == sum(4 * p.numel() for p in model.parameters())


def test_an_einsum_is_taken_apart_in_torchs_own_order() -> None:
    """Without inference mode torch shows the products an einsum becomes: the formula counts the same ones."""
    from torch.utils.flop_counter import FlopCounterMode

    a, b, c, d = (torch.rand(*size) for size in ((4, 6), (6, 5), (5, 3), (3, 2)))
    for equation, operands in (
        ("ab,bc,cd,de->ae", (a, b, c, d)),
        ("ab,bc,cd", (a, b, c)),
        ("ab,bc->c", (a, b)),
    ):
        with FlopCounterMode(display=False) as counter:
            torch.einsum(equation, *operands)

        class Model(nn.Module):
            def forward(self, *tensors: torch.Tensor, equation: str = equation) -> torch.Tensor:
                return torch.einsum(equation, *tensors)

        model = Model()
        traced = trace(model, lambda model=model, operands=operands: model(*operands))  # type: ignore[misc]
        assert phase_cost(traced)[0].matmul_flops == counter.get_total_flops(), equation


def test_compiled_code_is_traced_as_it_was_written() -> None:
    """A compiled block has the ops of the plain one, in its layer, and is compiled still."""
    plain = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2))
    compiled = nn.Sequential(*[torch.compile(layer, backend="eager") for layer in plain])
    x = torch.rand(3, 4)
    expected, found = (trace(m, lambda m=m: m(x)) for m in (plain, compiled))  # type: ignore[misc]
    assert [op.op for op in found.ops] == [op.op for op in expected.ops]
    assert phase_cost(found) == phase_cost(expected)
    assert type(compiled[0]).__name__ == "OptimizedModule"


def test_rounds_left_out_of_no_loop_that_is_found_are_those_of_the_round_before() -> None:
    """A round of 40 ops, more than any that is looked for, stands for 90 left out after it: each op of it ran
    91 times, those of the rounds around it once, and nothing fails."""
    tensor = TracedTensor((2,), "fp32", "activation", 8)
    ops = [TracedOp("", f"aten.op{i % 40}", (tensor,), (tensor,), False, {}) for i in range(160)]
    folded = fold(ops, [Skipped(40, 80, 90)])
    assert [op.attributes.get("repeat", 1) for op in folded] == [1] * 40 + [91] * 40 + [1] * 80


def test_a_loop_of_the_users_own_is_folded_and_other_repeats_are_not() -> None:
    """Six rounds of a product and a sum are one of each that ran six times; three rounds stay as they are."""

    class Loop(nn.Module):
        def __init__(self, rounds: int) -> None:
            super().__init__()
            self.layer, self.rounds = nn.Linear(4, 4), rounds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(self.rounds):
                x = torch.tanh(x @ self.layer.weight) + 1
            return x

    x = torch.rand(2, 4)
    folded, plain = Loop(6), Loop(3)
    six, three = trace(folded, lambda: folded(x)), trace(plain, lambda: plain(x))
    assert [(op.op, op.attributes["repeat"]) for op in six.ops] == [
        ("aten.matmul", 6),
        ("aten.tanh", 6),
        ("aten.add", 6),
    ]
    assert len(three.ops) == 9
    assert phase_cost(six)[0].matmul_flops == 2 * phase_cost(three)[0].matmul_flops == 6 * 2 * 2 * 4 * 4
