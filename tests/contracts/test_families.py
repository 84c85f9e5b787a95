"""What holds for every family of models: the trace is what runs, its parts add up, its work is by hand."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from tests.families import FAMILIES, MIXTURES, Shape
from tests.support import request
from torch import nn

from roofleet.analyzing.analysis import analyze, phase_cost
from roofleet_agent.engines.base import Session
from roofleet_agent.measuring.step_memory import memory_of
from roofleet_agent.passes.tracing import kv_bytes_per_token, op_rows, trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing import TracedOp, TracedTensor, TraceResult, layers_of, trace
from roofleet_agent.workload import Workload
from roofleet_analysis.catalogs.models import ModelEntry, models
from roofleet_analysis.costs import Cost, cost_of
from roofleet_analysis.costs.rows import op_of, total

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4)
# The middle decode step: 8 tokens of the prompt and one generated are cached.
STEPS = {"prefill": Shape(2, 8, 0, 8), "decode": Shape(2, 1, 9, 8), "forward": Shape(2, 8, 0, 8)}
EVERY_FAMILY = pytest.mark.parametrize("name", FAMILIES)


@dataclass(frozen=True)
class Run:
    """A family on the CPU, and its traces on `meta` and on real data by phase."""

    session: Session
    on_meta: dict[str, TraceResult]
    real: dict[str, TraceResult]


@cache
def run(name: str, workload: Workload = WORKLOAD, experts: str | None = None, dtype: str = "fp32") -> Run:
    """Traced once for all tests of this file."""
    config = FAMILIES[name].config | ({"experts_implementation": experts} if experts else {})
    engine = find_engine(request(config))
    on_meta = trace_phases(engine, request(config), dtype, workload).phases
    session = engine.load(request(config), torch.device("cpu"), dtype, workload)
    return Run(session, on_meta, {phase: traced_on(session, phase) for phase in on_meta})


def traced_on(session: Session, phase: str) -> TraceResult:
    """One step of a session, traced where it is."""
    step = session.single(phase)
    return trace(
        session.module,
        step.call,
        cache=session.cache,
        experts_per_token=session.experts_per_token,
        tokens=step.tokens,
        cached_tokens=step.cache_tokens,
    )


def cost(traced: TraceResult) -> Cost:
    """The sum of a trace in which every op has a formula."""
    summed, unknown = phase_cost(traced)
    assert unknown == []
    return summed


def comparable(ops: list[TracedOp]) -> list[TracedOp]:
    """transformers counts the tokens of an expert in floats on a CPU and in integers elsewhere: both are
    four bytes and tell the same."""

    def plain(tensor: TracedTensor) -> TracedTensor:
        return replace(tensor, dtype="fp32") if tensor.dtype == "int32" else tensor

    return [
        replace(op, inputs=tuple(map(plain, op.inputs)), outputs=tuple(map(plain, op.outputs)))
        if op.path.endswith(".experts")
        else op
        for op in ops
    ]


@EVERY_FAMILY
def test_the_trace_on_meta_is_what_runs(name: str) -> None:
    """Op for op in every phase: names, shapes, dtypes, roles, bytes, layers, and the data between them."""
    found = run(name)
    for phase, traced in found.on_meta.items():
        assert comparable(traced.ops) == comparable(found.real[phase].ops), phase
        assert traced.edges == found.real[phase].edges, phase


def test_a_model_that_warns_of_padding_is_traced_too() -> None:
    """GPT-2 with a padding token looks for it among ids that `meta` has not: the work stays the same."""
    config = FAMILIES["gpt2"].config | {"pad_token_id": 0}
    found = trace_phases(find_engine(request(config)), request(config), "fp32", WORKLOAD).phases
    assert found == run("gpt2").on_meta


@EVERY_FAMILY
def test_the_matrix_work_is_the_configurations(name: str) -> None:
    """Two operations for each multiply-add that the configuration says; every op has a formula."""
    for phase, traced in run(name).on_meta.items():
        assert cost(traced).matmul_flops == 2 * FAMILIES[name].products(STEPS[phase]), phase


@EVERY_FAMILY
def test_the_layers_add_up_to_the_model(name: str) -> None:
    """Every op belongs to a layer of the tree, and what the layers cost is what the phase costs."""
    found = run(name)
    paths = {layer.path for layer in layers_of(found.session.module)}
    for phase, traced in found.on_meta.items():
        by_layer: dict[str, list[Cost]] = defaultdict(list)
        for row in op_rows(phase, traced):
            known = cost_of(op_of(row))
            assert known is not None
            by_layer[row["path"]].append(known)
        assert set(by_layer) <= paths
        assert total(total(costs) for costs in by_layer.values()) == cost(traced)


def read_once(module: nn.Module, experts_per_token: int | None) -> int:
    """Bytes of weights that one token of one sequence needs: of a table the row it looks up, of experts
    those it is sent to, of everything else all."""
    needed, seen = 0, set()
    for part in module.modules():
        for tensor in (*part.parameters(recurse=False), *persistent(part)):
            if id(tensor) in seen:
                continue
            seen.add(id(tensor))
            share = tensor.numel() * tensor.element_size()
            if isinstance(part, nn.Embedding):
                share //= tensor.shape[0]
            elif type(part).__name__.endswith("Experts"):
                assert experts_per_token is not None
                share = share * experts_per_token // tensor.shape[0]
            needed += share
    head, table = module.get_output_embeddings(), module.get_input_embeddings()  # type: ignore[operator]
    if head.weight is table.weight:  # the table is the head's matrix too
        needed += head.weight.numel() * head.weight.element_size()
    return needed


def persistent(part: nn.Module) -> list[torch.Tensor]:
    """Buffers that a checkpoint holds."""
    hidden = part._non_persistent_buffers_set
    return [b for name, b in part.named_buffers(recurse=False) if name not in hidden]


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.kv or n == "mamba"])
def test_a_single_token_reads_the_weights_once(name: str) -> None:
    """A decode step of one sequence reads every weight that one token needs, and none twice."""
    found = run(name, replace(WORKLOAD, batch_size=1))
    decode = cost(found.on_meta["decode"])
    assert decode.weight_bytes == read_once(found.session.module, found.session.experts_per_token)


@pytest.mark.parametrize("name", [n for n, f in FAMILIES.items() if f.kv])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_cache_is_written_once_and_read_as_far_as_it_reaches(name: str, batch: int) -> None:
    """Written is what a new token adds, read what it is compared with, in every sequence of a batch: grouped
    heads store what they have, latents their latent, windows the positions in sight."""
    kv = FAMILIES[name].kv or ()
    found = run(name, replace(WORKLOAD, batch_size=batch))
    prefill, decode = cost(found.on_meta["prefill"]), cost(found.on_meta["decode"])
    assert prefill.kv_write_bytes == 4 * batch * 8 * sum(numbers for numbers, _ in kv)
    assert prefill.kv_read_bytes == prefill.kv_write_bytes
    assert decode.kv_write_bytes == 4 * batch * 1 * sum(numbers for numbers, _ in kv)
    reach = [(9 if window is None else min(9, window - 1)) + 1 for _, window in kv]
    assert decode.kv_read_bytes == 4 * batch * sum(
        numbers * seen for (numbers, _), seen in zip(kv, reach, strict=True)
    )
    assert kv_bytes_per_token(found.session, "fp32") == 4 * sum(numbers for numbers, _ in kv)


def test_the_state_of_a_scan_is_a_cache_that_does_not_grow() -> None:
    """Mamba reads and writes 64 features of a kernel of 4 and a state of 8, in 2 layers and 2 sequences."""
    found = run("mamba")
    decode, state = cost(found.on_meta["decode"]), 4 * 2 * 2 * 64 * (4 + 8)
    assert (decode.kv_read_bytes, decode.kv_write_bytes) == (state, state)
    assert kv_bytes_per_token(found.session, "fp32") == 0
    assert found.session.cache_elements(1000) == 2 * 64 * (4 + 8)


def test_a_scan_is_folded_to_one_round() -> None:
    """A prompt of 100 tokens has as many ops as one of 8, each of the loop's says that it ran 100 times, the
    work is that of 100 tokens, and all of it is what runs on real data."""
    short, long = (run("mamba", replace(WORKLOAD, prompt_tokens=n)) for n in (8, 100))
    ops = long.on_meta["prefill"].ops
    assert [op.op for op in ops] == [op.op for op in short.on_meta["prefill"].ops]
    assert ops == long.real["prefill"].ops
    assert {op.attributes["repeat"] for op in ops if "repeat" in op.attributes} == {100}
    assert cost(long.on_meta["prefill"]).matmul_flops == 2 * FAMILIES["mamba"].products(Shape(2, 100, 0, 100))
    stacked = [op for op in ops if op.op == "aten.stack"]
    assert [op.inputs[0].shape for op in stacked] == [(100, 2, 64)] * 2


def test_a_scan_whose_first_round_is_unlike_the_others_is_folded_too() -> None:
    """In bf16 the state begins in bf16 and goes on in fp32: the first of 100 rounds is kept by itself, the
    others are one round 99 times, and all of it is what runs on real data."""
    found = run("mamba", replace(WORKLOAD, prompt_tokens=100), dtype="bf16")
    ops = found.on_meta["prefill"].ops
    assert ops == found.real["prefill"].ops
    assert {op.attributes["repeat"] for op in ops if "repeat" in op.attributes} == {99}
    wanted = 2 * FAMILIES["mamba"].products(Shape(2, 100, 0, 100))
    assert cost(found.on_meta["prefill"]).matmul_flops == wanted


def test_a_scan_that_is_cut_short_takes_the_memory_of_all_its_rounds() -> None:
    """On `meta` only a few rounds of a scan run; what is alive at the peak is what it is on real data, and no
    class or function is another one afterwards."""
    wanted, workload = request(FAMILIES["mamba"].config), replace(WORKLOAD, prompt_tokens=100)
    engine = find_engine(wanted)
    peaks = []
    for device in ("meta", "cpu"):
        session = engine.load(wanted, torch.device(device), "fp32", workload)
        phases = memory_of(session, session.iteration()).phases
        peaks.append({p: (m.kv_bytes, m.activation_bytes, m.peak_path) for p, m in phases.items()})
        mixer = session.module.get_submodule("backbone.layers.0.mixer")
        assert ("forward" in vars(mixer)) == (device == "meta")
    assert peaks[0] == peaks[1]


def test_the_memory_of_a_long_scan_is_found_in_no_time() -> None:
    """200,000 tokens of a state-space model, which a loop would go through one by one, are added up."""
    found = analyze(request(FAMILIES["mamba"].config), "fp32", Workload(prompt_tokens=200_000), [])
    assert found["phases"]["prefill"]["matmul_flops"] == 2 * FAMILIES["mamba"].products(
        Shape(1, 200_000, 0, 200_000)
    )


def test_an_encoder_decoder_reads_both_its_caches() -> None:
    """T5 reads 8 positions of the encoder's output and 3 of its own, the start included, and writes one:
    2 layers of 2 x 24 numbers in 2 sequences."""
    found = run("t5")
    a_position = 4 * 2 * 2 * 2 * 24
    prefill, decode = cost(found.on_meta["prefill"]), cost(found.on_meta["decode"])
    assert prefill.kv_write_bytes == prefill.kv_read_bytes == (8 + 1) * a_position
    assert (decode.kv_read_bytes, decode.kv_write_bytes) == ((8 + 3) * a_position, a_position)
    assert kv_bytes_per_token(found.session, "fp32") == a_position // 2
    # of 8 tokens of a prompt and 3 that were fed back, and the start
    assert found.session.cache_elements(8 + 3) == (8 + 4) * 2 * 2 * 24


def test_an_encoder_decoder_keeps_its_halves_apart() -> None:
    """T5's encoder runs in prefill only, and every op of its halves lies below `encoder` or `decoder`."""
    found = run("t5")
    halves = {p: {op.path.split(".")[0] for op in t.ops} for p, t in found.on_meta.items()}
    assert {"encoder", "decoder"} < halves["prefill"]
    assert "encoder" not in halves["decode"]
    roles = {la.path: la.role for la in layers_of(found.session.module)}
    assert roles["encoder.block.0"] == roles["decoder.block.1"] == "block"
    assert (
        roles["decoder.block.1.layer.1"] == roles["decoder.block.1.layer.1.EncDecAttention.q"] == "attention"
    )
    assert roles["encoder.block.0.layer.1.DenseReluDense.wi"] == "mlp"


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("experts", ["grouped_mm", "batched_mm", "eager"])
def test_how_experts_run_changes_neither_their_work_nor_their_bytes(name: str, experts: str) -> None:
    """Grouped, batched and one by one, on `meta` and on real data: the same products. The weights read are
    those met on average, but where a loop over real ones knows which it met."""
    found = run(name, experts=experts)
    for phase, traced in found.on_meta.items():
        expected = cost(run(name).on_meta[phase])
        assert cost(traced).matmul_flops == expected.matmul_flops
        assert cost(found.real[phase]).matmul_flops == expected.matmul_flops
        # rounded for each of the layers' stacks of matrices
        assert cost(traced).weight_bytes == pytest.approx(expected.weight_bytes, abs=16)
        if experts != "eager":
            assert comparable(traced.ops) == comparable(found.real[phase].ops)


@pytest.mark.parametrize("name", ["llama", "mixtral", "mamba", "t5", "bert"])
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_the_dtype_changes_bytes_and_not_the_work(name: str, dtype: str) -> None:
    """In half the bytes the products are the same, on `meta` and on real data; weights take half."""
    found = run(name, dtype=dtype)
    for phase, traced in found.on_meta.items():
        whole, half = cost(run(name).on_meta[phase]), cost(traced)
        assert half.matmul_flops == cost(found.real[phase]).matmul_flops == whole.matmul_flops
        assert half.weight_bytes == cost(found.real[phase]).weight_bytes
        if name in ("llama", "bert"):
            assert (2 * half.weight_bytes, 2 * half.kv_read_bytes) == (
                whole.weight_bytes,
                whole.kv_read_bytes,
            )


@pytest.mark.parametrize("attention", ["eager", "sdpa", "flex"])
@pytest.mark.parametrize("name", ["llama", "mistral", "opt", "deepseek_v3", "bert"])
def test_the_attention_changes_neither_work_nor_weights_nor_cache(name: str, attention: str) -> None:
    """Eager, fused and flexible, traced on real data: the same products and bytes of weights and cache."""
    found = run(name, replace(WORKLOAD, attention=attention))
    for phase, traced in found.real.items():
        expected = cost(run(name).on_meta[phase])
        for seen in (cost(traced), cost(found.on_meta[phase])):
            assert seen.matmul_flops == expected.matmul_flops
            assert seen.weight_bytes == expected.weight_bytes
            assert (seen.kv_read_bytes, seen.kv_write_bytes) == (
                expected.kv_read_bytes,
                expected.kv_write_bytes,
            )


@pytest.mark.slow
@pytest.mark.parametrize("entry", models(), ids=lambda entry: entry.name)
def test_every_published_model_is_costed_at_full_size(entry: ModelEntry) -> None:
    """On `meta`: each phase is there and does matrix work, every op has a formula, and the decode step of one
    sequence reads every weight that a token needs once."""
    wanted = request(dict(entry.config), task=entry.task)
    traced = trace_phases(find_engine(wanted), wanted, "bf16", Workload(prompt_tokens=16, new_tokens=2))
    costs = {phase: cost(found) for phase, found in traced.phases.items()}
    assert set(costs) == ({"prefill", "decode"} if entry.task == "generate" else {"forward"})
    assert all(found.matmul_flops > 0 for found in costs.values())
    if entry.task == "generate" and entry.model_type != "t5":
        needed = read_once(traced.session.module, traced.session.experts_per_token)
        assert costs["decode"].weight_bytes == pytest.approx(needed, rel=1e-6)
    traced.session.close()
