"""The trace of weights that are no plain tensors: quantised by torchao, and packed by torch itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.support import TINY_GPT2, TINY_LLAMA, request
from torch import nn

from roofleet.analyzing.analysis import phase_cost
from roofleet_agent.engines.base import Session
from roofleet_agent.passes.tracing import op_rows
from roofleet_agent.registry import find_engine
from roofleet_agent.tracing import TracedOp, TraceResult, trace
from roofleet_agent.workload import Workload
from roofleet_analysis.costs.dtypes import computing_dtype
from roofleet_analysis.costs.rows import op_of

WORKLOAD = Workload(batch_size=2, prompt_tokens=8, new_tokens=4)
LINEAR = ("aten.linear", "quantized.linear_dynamic")


def int8_dynamic(model: nn.Module) -> nn.Module:
    """torchao: weights in int8, activations made int8 as they come."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    quantize_(model, Int8DynamicActivationInt8WeightConfig())
    return model


def int8_weight_only(model: nn.Module) -> nn.Module:
    """torchao: weights in int8, computed in the model's dtype."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    quantize_(model, Int8WeightOnlyConfig())
    return model


def torch_dynamic(model: nn.Module) -> nn.Module:
    """torch's own dynamic int8, with weights packed into an object."""
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)


class Int4Linear(nn.Module):
    """torch's own int4 product on a CPU, with 32 weights to a scale."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        weight = torch.randint(0, 16, layer.weight.shape, dtype=torch.int32)
        self.weight = nn.Buffer(torch.ops.aten._convert_weight_to_int4pack_for_cpu(weight, 1))
        groups = layer.in_features // 32
        self.scales = nn.Buffer(torch.rand(groups, layer.out_features, 2, dtype=torch.bfloat16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: [rows, features] in bf16."""
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, self.weight, 32, self.scales)


def session_of(change: Callable[[nn.Module], nn.Module] = lambda model: model) -> Session:
    """A tiny llama on the CPU, changed."""
    session = find_engine(request(TINY_LLAMA)).load(
        request(TINY_LLAMA), torch.device("cpu"), "fp32", WORKLOAD
    )
    session.module = change(session.module)
    return session


def linear_ops(session: Session, phase: str) -> list[TracedOp]:
    """The products of a step with weights."""
    traced = trace(session.module, session.single(phase).call, cache=session.cache)
    assert phase_cost(traced)[1] == []
    return [op for op in traced.ops if op.op in LINEAR]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [int8_dynamic, int8_weight_only, torch_dynamic])
@pytest.mark.parametrize("phase", ["prefill", "decode"])
def test_int8_keeps_the_work_and_takes_the_bytes_it_is_stored_in(
    change: Callable[[nn.Module], nn.Module], phase: str
) -> None:
    """The quantised model as it runs on the CPU: the same products as before, one for each layer, weights of
    a byte a number and their scales, and the cache as it was."""
    plain, packed = session_of(), session_of(change)
    before, after = (
        phase_cost(trace(s.module, s.single(phase).call, cache=s.cache))[0] for s in (plain, packed)
    )
    assert after.matmul_flops == before.matmul_flops
    assert after.kv_read_bytes == before.kv_read_bytes
    ops = linear_ops(packed, phase)
    assert len(ops) == len(linear_ops(plain, phase)) == 2 * 7 + 1
    for op in ops:
        weight = op.inputs[1]
        assert (weight.role, weight.dtype) == ("weight", "int8")
        rows, features = weight.shape
        scales = 0 if change is torch_dynamic else rows * (4 + 1)  # a float and a zero point a row
        assert weight.bytes == rows * features + scales
    # only what is quantised on both sides is multiplied in int8, and under the roof of it
    (row,) = op_rows(phase, TraceResult([ops[0]], []))
    assert computing_dtype(op_of(row)) == ("fp32" if change is int8_weight_only else "int8")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [int8_dynamic, int8_weight_only, torch_dynamic])
def test_a_quantised_model_computes_the_same_while_it_is_traced(
    change: Callable[[nn.Module], nn.Module],
) -> None:
    """Its logits under the trace are those without it."""
    model = change(session_of().module)
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        expected = model(ids).logits
    found = []
    trace(model, lambda: found.append(model(ids).logits))
    torch.testing.assert_close(found[0], expected)


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_table_is_looked_up_by_rows() -> None:
    """An embedding in int8 is one lookup, of which only the rows that are picked are read."""
    from torchao.quantization import IntxWeightOnlyConfig, quantize_

    model = nn.Sequential(nn.Embedding(64, 32))
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=torch.int8), lambda m, _: isinstance(m, nn.Embedding))
    ids = torch.zeros(2, 3, dtype=torch.long)
    traced = trace(model, lambda: model(ids))
    assert [op.op for op in traced.ops] == ["aten.embedding"]
    table, _ = traced.ops[0].inputs
    assert (table.role, table.dtype, table.shape) == ("weight", "int8", (64, 32))
    assert phase_cost(traced)[1] == []


def test_int4_takes_half_a_byte_and_its_scales() -> None:
    """64 x 96 numbers in int4 are 3,072 bytes, and 3 groups of 64 have a scale and a zero point in bf16."""
    model = Int4Linear(nn.Linear(96, 64))
    x = torch.rand(5, 96, dtype=torch.bfloat16)
    traced = trace(model, lambda: model(x))
    cost, unknown = phase_cost(traced)
    assert unknown == []
    assert cost.matmul_flops == 2 * 5 * 96 * 64
    assert cost.weight_bytes == 64 * 96 // 2 + 3 * 64 * 2 * 2


@pytest.mark.filterwarnings("ignore")
def test_numbers_that_share_a_byte_are_int4() -> None:
    """A wrapped weight whose numbers take half a byte each tells its dtype so, and its whole bytes."""
    from torchao.quantization import Int4Tensor

    weight = Int4Tensor(
        torch.zeros(64, 48, dtype=torch.int8),
        scale=torch.ones(3, 64),
        zero_point=torch.zeros(3, 64),
        block_size=[1, 32],
        shape=torch.Size((64, 96)),
    )
    from roofleet_agent.tracing.operands import covered_bytes, dtype_name

    assert dtype_name(weight) == "int4"
    assert covered_bytes(weight) == 64 * 96 // 2 + 2 * 3 * 64 * 4


def test_plain_models_pay_nothing_for_it() -> None:
    """Calls of torch are looked at one by one only where a weight is wrapped."""
    from torch.overrides import _get_current_function_mode_stack

    modes: list[int] = []
    session = find_engine(request(TINY_GPT2)).load(request(TINY_GPT2), torch.device("cpu"), "fp32", WORKLOAD)
    hook = session.module.register_forward_hook(
        lambda *_: modes.append(len(_get_current_function_mode_stack()))
    )
    trace(session.module, session.single("prefill").call)
    hook.remove()
    assert modes == [0]
