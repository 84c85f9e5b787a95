"""Variants: their names, what each does to storage and arithmetic, and what it says it could not do."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.families import FAMILIES
from tests.support import TINY_BERT, TINY_GPT2, TINY_LLAMA, ListSink, request
from torch import nn

from roofleet.analyzing.analysis import analyze, phase_cost
from roofleet.naming.models import resolve
from roofleet_agent import profiling
from roofleet_agent.devices.cpu import CpuDevice
from roofleet_agent.errors import WorkloadRefused
from roofleet_agent.passes.tracing import Traced, trace_phases
from roofleet_agent.registry import find_engine
from roofleet_agent.storage import stored_bytes
from roofleet_agent.tracing import layers_of
from roofleet_agent.variants import Variant, parse
from roofleet_agent.variants.applying import apply_variant
from roofleet_agent.variants.quantizing import Int4Linear
from roofleet_agent.workload import Workload

CPU = torch.device("cpu")
SMALL_LLAMA = {**TINY_LLAMA, "hidden_size": 64, "intermediate_size": 128, "head_dim": 16}
STORED_OTHERWISE = {"llama": SMALL_LLAMA, "gpt2": TINY_GPT2}
WORKLOAD = Workload(prompt_tokens=8, new_tokens=3, iterations=1, warmup=1)

VARIANTS = st.builds(
    Variant,
    pruned=st.none() | st.integers(1, 99).map(lambda n: n / 100),
    pruned_structured=st.none() | st.integers(1, 99).map(lambda n: n / 100),
    quantized=st.sampled_from([None, "int8-dynamic", "int8-weight-only", "int4-weight-only"]),
    compiled=st.sampled_from([None, "compile", "compile-blocks"]),
    static_cache=st.booleans(),
)


@given(VARIANTS)
def test_the_name_of_a_variant_names_it(variant: Variant) -> None:
    """Parsing a canonical name gives the variant back, and parts may come in any order."""
    assert parse(variant.name) == variant
    assert parse("+".join(reversed(variant.name.split("+")))) == variant


@pytest.mark.parametrize("text", ["int3", "pruned-0", "pruned-100", "", "base+x", "compile+compile-blocks"])
def test_a_name_that_is_not_known_is_refused_with_those_that_are(text: str) -> None:
    """The message names what there is, or what was said twice."""
    with pytest.raises(WorkloadRefused, match=r"int8-dynamic, int8-weight-only|says twice"):
        parse(text)


@cache
def unchanged(name: str, dtype: str) -> Traced:
    """The trace of a model without a variant."""
    return traced(STORED_OTHERWISE[name], "base", dtype)


def traced(config: dict[str, Any], variant: str, dtype: str = "fp32") -> Traced:
    """The trace of a variant on meta."""
    asked = request(config)
    return trace_phases(find_engine(asked), asked, dtype, replace(WORKLOAD, variant=parse(variant)))


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("variant", ["int8-dynamic", "int8-weight-only", "int4-weight-only", "pruned-50"])
@pytest.mark.parametrize("name", STORED_OTHERWISE)
def test_storing_weights_otherwise_leaves_the_matrix_work(name: str, variant: str, dtype: str) -> None:
    """Prefill and decode do the same multiplications in every quantisation, and know every op."""
    base = unchanged(name, dtype)
    changed = traced(STORED_OTHERWISE[name], variant, dtype)
    for phase in ("prefill", "decode"):
        before, _ = phase_cost(base.phases[phase])
        after, unknown = phase_cost(changed.phases[phase])
        assert after.matmul_flops == before.matmul_flops
        assert not unknown


def test_weight_bytes_are_those_of_the_storage() -> None:
    """A 64 x 128 matrix: 32,768 bytes in fp32, 8,192 in int8 with a scale and a zero a row, 4,096 in int4
    with a scale and a zero a group."""
    layers = {name: nn.Sequential(nn.Linear(128, 64, bias=False)) for name in ("fp32", "int8", "int4")}
    for name, variant in (("int8", "int8-weight-only"), ("int4", "int4-weight-only")):
        apply_variant(layers[name], parse(variant), CPU)
    assert stored_bytes(layers["fp32"]) == 64 * 128 * 4
    assert stored_bytes(layers["int8"]) == 64 * 128 + 64 * (4 + 1)  # the zero in one byte
    # one group of 128 a row: 64 x (scale + zero) x 4
    assert stored_bytes(layers["int4"]) == 64 * 128 // 2 + 64 * 2 * 4


@pytest.mark.parametrize("variant", ["int8-weight-only", "int4-weight-only", "pruned-structured-50"])
def test_a_variant_takes_on_meta_what_it_takes_on_a_device(variant: str) -> None:
    """What analyze says of a variant's weights is what loading it gives."""
    asked = request(SMALL_LLAMA)
    workload = replace(WORKLOAD, variant=parse(variant))
    session = find_engine(asked).load(asked, CPU, "fp32", workload)
    assert stored_bytes(session.module) == traced(SMALL_LLAMA, variant).weight_bytes


def test_int4_computes_what_its_digits_say() -> None:
    """The product with packed digits is the product with the matrix they stand for."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 32)
    packed = Int4Linear(layer, 32)
    grouped = layer.weight.detach().view(32, 2, 32)
    low, high = grouped.amin(-1, keepdim=True), grouped.amax(-1, keepdim=True)
    step = (high - low) / 15
    stands_for = (((grouped - low) / step).round() * step + low).view(32, 64)
    x = torch.randn(3, 5, 64)
    with torch.inference_mode():
        assert torch.allclose(packed(x), x @ stands_for.T + layer.bias, atol=1e-4)


def test_a_layer_that_cannot_be_quantised_is_left_and_told() -> None:
    """48 features are no multiple of 32: that layer stays, the other is packed, and both are said."""
    model = nn.Sequential(nn.Linear(64, 48), nn.Linear(48, 16))
    applied = apply_variant(model, parse("int4-weight-only"), CPU)
    assert isinstance(model[0], Int4Linear)
    assert type(model[1]) is nn.Linear
    assert ("*", "left in float32") in [(n.path, n.done) for n in applied.notes]
    assert "48 input features" in applied.notes[0].reason
    assert "--dtype bf16" in applied.notes[-1].done


def test_a_layer_that_sits_at_two_places_is_replaced_at_both() -> None:
    """Shared before, shared after, and not half in the old dtype."""
    shared = nn.Linear(64, 64)
    model = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)})
    apply_variant(model, parse("int4-weight-only"), CPU)
    assert isinstance(model["a"], Int4Linear)
    assert model["b"][0] is model["a"]


def test_a_model_that_is_one_layer_is_left_and_refused() -> None:
    """Nothing holds it in whose place another could be put."""
    with pytest.raises(WorkloadRefused, match="could not be applied to any layer"):
        apply_variant(nn.Linear(64, 64), parse("int4-weight-only"), CPU)


def test_packed_weights_are_counted_each_by_itself() -> None:
    """Twenty layers of 256 x 256 in torch's dynamic int8: a byte a weight and a little, though unpacked
    copies come and go at the same address."""
    model = nn.Sequential(*(nn.Linear(256, 256) for _ in range(20)))
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with_biases = 20 * (256 * 256 + 256 * 4)
    assert with_biases <= stored_bytes(quantized) <= with_biases + 20 * 256 * 16


def test_convolutions_are_no_experts() -> None:
    """A filter of three dimensions is not pruned as a stack of matrices, nor told as one."""
    model = nn.Sequential(nn.Conv1d(4, 4, 3), nn.Linear(64, 64))
    weight: Any = model[0].weight
    applied = apply_variant(model, parse("pruned-50+int8-weight-only"), CPU)
    assert int((weight == 0).sum()) == 0
    assert not applied.notes


def test_a_model_without_linear_layers_cannot_be_quantised() -> None:
    """Said instead of a run that claims to be quantised."""
    with pytest.raises(WorkloadRefused, match="has no linear layers"):
        apply_variant(nn.Sequential(nn.ReLU()), parse("int8-weight-only"), CPU)


def test_the_output_head_stays_and_is_told() -> None:
    """Embedding and head keep their dtype, tied or not."""
    asked = request(SMALL_LLAMA)
    session = find_engine(asked).load(asked, CPU, "fp32", replace(WORKLOAD, variant=parse("int8-dynamic")))
    assert [n.path for n in session.notes] == ["lm_head"]
    head: Any = session.module.get_submodule("lm_head")
    assert type(head.weight) is nn.Parameter
    assert session.parameters == find_engine(asked).load(asked, CPU, "fp32", WORKLOAD).parameters


def test_pruning_sets_a_share_of_every_matrix_to_zero() -> None:
    """75 % of 64 x 64 weights: 3,072 zeros, the largest kept; storage stays."""
    model = nn.Sequential(nn.Linear(64, 64))
    weight: Any = model[0].weight
    largest = weight.detach().abs().flatten().topk(1024).values.sum()
    before = stored_bytes(model)
    apply_variant(model, parse("pruned-75"), CPU)
    pruned: Any = model[0].weight
    assert int((pruned == 0).sum()) == 3072
    assert torch.allclose(pruned.detach().abs().sum(), largest)
    assert stored_bytes(model) == before
    assert not model[0]._forward_pre_hooks


def test_structured_pruning_makes_the_feed_forward_smaller() -> None:
    """Two blocks of 64 -> 128 -> 64 with a gate: each saves half of 3 x 64 x 128 multiply-adds a token."""
    before, _ = phase_cost(traced(SMALL_LLAMA, "base").phases["decode"])
    after, unknown = phase_cost(traced(SMALL_LLAMA, "pruned-structured-50").phases["decode"])
    # 2 blocks * 2 * 3 * 64 * 64 = 49,152
    assert before.matmul_flops - after.matmul_flops == 2 * 2 * 3 * 64 * 64
    assert not unknown


def test_the_parameters_are_those_that_are_left() -> None:
    """gpt2 with half of the 3,072 features of its 12 layers cut out loses 12 x 1,536 x (2 x 768 + 1) of its
    124,439,808 parameters; weights in four bits are as many as before, and the layers add up to all."""
    cut = analyze(resolve("gpt2", None), "fp32", replace(WORKLOAD, variant=parse("pruned-structured-50")), [])
    assert cut["parameters"] == 124_439_808 - 12 * 1_536 * (2 * 768 + 1) == 96_109_824
    asked = request(SMALL_LLAMA)
    base, packed = (
        find_engine(asked).load(asked, CPU, "fp32", replace(WORKLOAD, variant=parse(name)))
        for name in ("base", "int4-weight-only")
    )
    layers = layers_of(packed.module)
    assert any(layer.module_type == "Int4Linear" for layer in layers)
    assert sum(layer.parameters for layer in layers) == packed.held_parameters == base.held_parameters
    assert packed.parameters == base.parameters == base.held_parameters
    (up,) = [layer for layer in layers if layer.path == "model.layers.0.mlp.up_proj"]
    # two digits a byte, and a scale and a zero in fp32 for each group of 64
    assert (up.parameters, up.parameter_bytes) == (64 * 128, 64 * 128 // 2 + 2 * 128 * 4)


@pytest.mark.parametrize(
    ("config", "features"),
    [(TINY_GPT2, 128), (TINY_BERT, 64), (SMALL_LLAMA, 128)],
    ids=["gpt2", "bert", "llama"],
)
def test_structured_pruning_keeps_the_features_that_matter(config: dict[str, Any], features: int) -> None:
    """With the columns of half the features set to zero, taking those out changes nothing."""
    asked = request(config)
    session = find_engine(asked).load(asked, CPU, "fp32", WORKLOAD)
    model: Any = session.module
    downs = [m for p, m in model.named_modules() if p.endswith(("mlp.c_proj", "output.dense", "down_proj"))]
    downs = [m for m in downs if features in m.weight.shape]
    with torch.no_grad():
        for down in downs:
            along = 0 if down.weight.shape[0] == features else 1
            down.weight.index_fill_(along, torch.arange(0, features, 2), 0.0)
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        before = model(input_ids=ids)[0]
        apply_variant(model, parse("pruned-structured-50"), CPU)
        after = model(input_ids=ids)[0]
    assert downs
    assert all(features // 2 in m.weight.shape for m in downs)
    assert torch.allclose(before, after, atol=1e-5)


def run(variant: str, config: dict[str, Any] = SMALL_LLAMA) -> ListSink:
    """A run of a variant on the CPU."""
    sink = ListSink()
    workload = replace(WORKLOAD, variant=parse(variant), iterations=2)
    profiling.profile(request(config), CpuDevice(), "fp32", workload, sink)
    return sink


@pytest.mark.slow
def test_blocks_compiled_one_by_one_stay_visible() -> None:
    """Each of ten blocks is compiled and timed, more than torch compiles of one code by itself; what is
    inside is the block's: its ops, and so its work, are told as its own."""
    sink = run("compile-blocks", SMALL_LLAMA | {"num_hidden_layers": 10})
    timed = {span["path"] for span in sink.rows("spans")}
    assert {f"model.layers.{number}" for number in range(10)} | {"lm_head"} <= timed
    for table in ("spans", "ops", "op_times"):
        assert not any(row["path"].startswith("model.layers.0.") for row in sink.rows(table))
    for edge in sink.rows("layer_edges"):
        assert not edge["source_path"].startswith("model.layers.0.")
    products = [op for op in sink.rows("ops") if op["path"] == "model.layers.9" and op["op"] == "aten.linear"]
    assert len(products) == 2 * 7  # q, k, v, output, gate, up, down in prefill and in decode
    notes = json.loads(sink.rows("runs")[-1]["variant_notes"])
    assert "compiled" in notes[-1]["reason"]
    assert sink.rows("runs")[-1]["variant"] == "compile-blocks"


def test_a_static_cache_is_all_there_from_the_start() -> None:
    """Keys and values of 2 layers, 2 heads of 16 for 8 + 3 tokens in fp32: 2 x 2 x 2 x 16 x 11 x 4 bytes."""
    memory = {row["phase"]: row for row in run("static-cache").rows("phase_memory")}
    assert memory["prefill"]["kv_bytes"] == memory["decode"]["kv_bytes"] == 2 * 2 * 2 * 16 * 11 * 4


def test_a_variant_runs_and_says_what_it_is() -> None:
    """A pruned and quantised run stores both names, its notes, and fewer bytes of weights than its base."""
    sink = run("int8-weight-only+pruned-50")
    row = sink.rows("runs")[-1]
    assert row["variant"] == "pruned-50+int8-weight-only"
    assert json.loads(row["variant_notes"])[0]["path"] == "lm_head"
    assert row["parameter_bytes"] < run("base").rows("runs")[-1]["parameter_bytes"]
    assert row["outputs_finite"]


REFUSED = {
    ("mamba", "pruned-structured-50"): "no feed-forward layer",
    ("mixtral", "pruned-structured-50"): "no feed-forward layer",
    ("gpt_oss", "pruned-structured-50"): "no feed-forward layer",
}


@pytest.mark.parametrize("family", ["t5", "bert", "mamba", "mixtral", "gpt_oss", "deepseek_v3"])
@pytest.mark.parametrize("variant", ["int8-dynamic", "int4-weight-only", "pruned-structured-50"])
def test_a_variant_runs_or_is_refused_on_every_kind_of_model(family: str, variant: str) -> None:
    """Layers that a family reads in its own way are left and told; nothing fails in the middle."""
    asked = request(FAMILIES[family].config)
    workload = replace(WORKLOAD, variant=parse(variant), iterations=1, warmup=0)
    sink = ListSink()
    if (family, variant) in REFUSED:
        with pytest.raises(WorkloadRefused, match=REFUSED[family, variant]):
            profiling.profile(asked, CpuDevice(), "fp32", workload, sink)
        assert not sink.tables
        return
    profiling.profile(asked, CpuDevice(), "fp32", workload, sink)
    assert sink.rows("runs")[-1]["status"] == "done"
    assert sink.rows("runs")[-1]["outputs_finite"]
