"""Formulas against torch itself: real calls as the tracer sees them, closed forms, torch's own counter."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from math import log2
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from roofleet_agent.tracing.recorder import Recorder
from roofleet_analysis.costs import FORMULAS, Cost, Op, Tensor, cost_of
from roofleet_analysis.costs.rows import total

ROOT = Path(__file__).parents[2]
_PAGE = importlib.util.spec_from_file_location("make_operators", ROOT / "docs/make_operators.py")
assert _PAGE is not None
assert _PAGE.loader is not None
page = importlib.util.module_from_spec(_PAGE)
_PAGE.loader.exec_module(page)


def counted(call: Callable[[], Any], expected_op: str | None = None) -> Cost:
    """The cost of all ops of a call, every one of them known."""
    recorder = Recorder(None)
    with torch.inference_mode(), recorder:
        call()
    ops = [
        Op(
            op.op,
            tuple(Tensor(t.shape, t.dtype, t.role, t.bytes) for t in op.inputs),
            tuple(Tensor(t.shape, t.dtype, t.role, t.bytes) for t in op.outputs),
            op.is_view,
            op.attributes,
        )
        for op in recorder.result().ops
    ]
    assert expected_op is None or expected_op in [op.name for op in ops]
    costs = {op.name: cost_of(op) for op in ops}
    assert None not in costs.values(), costs
    return total(cost for op in ops if (cost := cost_of(op)) is not None)


def r(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers of that shape."""
    return torch.rand(*shape).to(dtype)


PRODUCTS: list[tuple[str, Callable[[], Any], int]] = [
    ("aten.linalg_matmul", lambda: torch.linalg.matmul(r(4, 6), r(6, 5)), 2 * 4 * 6 * 5),
    ("aten.inner", lambda: torch.inner(r(4, 6), r(5, 6)), 2 * 4 * 6 * 5),
    ("aten.linalg_vecdot", lambda: torch.linalg.vecdot(r(4, 6), r(4, 6)), 2 * 4 * 6),
    ("aten.addmv", lambda: torch.addmv(r(4), r(4, 6), r(6)), 2 * 4 * 6),
    ("aten.addbmm", lambda: torch.addbmm(r(4, 5), r(3, 4, 6), r(3, 6, 5)), 2 * 3 * 4 * 6 * 5),
    ("aten.addmm_", lambda: r(4, 5).addmm_(r(4, 6), r(6, 5)), 2 * 4 * 6 * 5),
    ("aten.tensordot", lambda: torch.tensordot(r(4, 6, 7), r(7, 6, 5), ([1, 2], [1, 0])), 2 * 4 * 42 * 5),
    # x [8, 3] @ w [3, 4 * 5] and each of the [8, 5, 4] with y [8, 4]
    ("aten.bilinear", lambda: functional.bilinear(r(8, 3), r(8, 4), r(5, 3, 4)),
     2 * 8 * 20 * 3 + 2 * 8 * 5 * 4),
    # [9, 2] @ [2, 8] @ [8, 3] @ [3, 7]: the second and third first, then from the right
    ("aten.linalg_multi_dot", lambda: torch.linalg.multi_dot([r(9, 2), r(2, 8), r(8, 3), r(3, 7)]),
     2 * (2 * 8 * 3 + 2 * 3 * 7 + 9 * 2 * 7)),
    ("aten.chain_matmul", lambda: torch.chain_matmul(r(4, 6), r(6, 5)), 2 * 4 * 6 * 5),
    # a^5 = a * (a^2)^2: three products
    ("aten.linalg_matrix_power", lambda: torch.linalg.matrix_power(r(4, 4), 5), 3 * 2 * 4 * 4 * 4),
    ("aten.cdist", lambda: torch.cdist(r(40, 6), r(30, 6)), 2 * 40 * 30 * 6),
    ("aten.cov", lambda: torch.cov(r(4, 10)), 2 * 4 * 4 * 10),
    ("aten.affine_grid_generator", lambda: functional.affine_grid(r(2, 2, 3), [2, 1, 5, 4], False),
     2 * (2 * 20 * 2) * 3),
    ("aten.einsum", lambda: torch.einsum("bi,bj,ij->b", r(8, 3), r(8, 4), r(3, 4)), 2 * 8 * 3 * 4),
    # complex: four real products and four sums where a real multiply-add is one of each
    ("aten.mm", lambda: torch.mm(*[r(6, 6, dtype=torch.complex64)] * 2), 4 * 2 * 6 * 6 * 6),
    ("aten.conv3d", lambda: functional.conv3d(r(2, 4, 5, 6, 7), r(8, 2, 3, 3, 3), groups=2),
     2 * (2 * 8 * 3 * 4 * 5) * (2 * 27)),
    ("aten.conv1d", lambda: functional.conv1d(r(2, 3, 20), r(5, 3, 4), stride=2, dilation=3),
     2 * (2 * 5 * 6) * 12),
    ("aten.conv2d", lambda: functional.conv2d(r(2, 4, 8, 8), r(4, 1, 3, 3), groups=4, padding="same"),
     2 * (2 * 4 * 64) * 9),
    # every one of 2 x 6 x 10 inputs meets 3 output channels of its group and 4 places
    ("aten.conv_transpose1d", lambda: functional.conv_transpose1d(
        r(2, 6, 10), r(6, 3, 4), stride=3, output_padding=2, groups=2), 2 * (2 * 6 * 10) * (3 * 4)),
    ("aten.conv_transpose2d", lambda: functional.conv_transpose2d(r(2, 6, 5, 5), r(6, 3, 3, 3), stride=2),
     2 * (2 * 6 * 25) * (3 * 9)),
    ("aten.conv_transpose3d", lambda: functional.conv_transpose3d(r(1, 2, 3, 3, 3), r(2, 4, 2, 2, 2)),
     2 * (2 * 27) * (4 * 8)),
    ("aten.conv_tbc", lambda: torch.conv_tbc(r(9, 2, 3), r(4, 3, 5), r(5)), 2 * (6 * 2 * 5) * (4 * 3)),
    ("aten._int_mm", lambda: torch._int_mm(*[torch.ones(32, 32, dtype=torch.int8)] * 2), 2 * 32**3),
    # 7 steps of 2 sequences in 2 directions: [20, 6] and [20, 5] in each; then in the next layer [20, 10]
    ("aten.lstm", lambda: nn.LSTM(6, 5, 2, bidirectional=True)(r(7, 2, 6)),
     2 * 14 * 2 * (20 * 6 + 20 * 5 + 20 * 10 + 20 * 5)),
    ("aten.gru_cell", lambda: nn.GRUCell(6, 5)(r(2, 6)), 2 * 2 * (15 * 6 + 15 * 5)),
    ("aten.rnn_tanh", lambda: nn.RNN(6, 5)(r(7, 2, 6)), 2 * 14 * (5 * 6 + 5 * 5)),
]  # fmt: skip


@pytest.mark.parametrize(("op", "call", "flops"), PRODUCTS, ids=[op for op, _, _ in PRODUCTS])
def test_products_count_two_operations_a_multiply_add(op: str, call: Callable[[], Any], flops: int) -> None:
    """Each of torch's ways to multiply counts what its closed form says."""
    assert counted(call, op).matmul_flops == flops


def test_where_torch_counts_it_counts_the_same() -> None:
    """Convolutions of every kind and fused attention agree with torch's own FLOP counter."""
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.ConvTranspose2d(8, 4, 3, stride=2, groups=2, output_padding=1),
        nn.Conv2d(4, 8, 3, dilation=2, groups=2),
        nn.Flatten(2),
        nn.Conv1d(8, 8, 5),
        nn.Linear(192, 7),
    ).eval()
    q = r(2, 4, 9, 8)

    def call() -> None:
        module(r(2, 3, 16, 16))
        with sdpa_kernel(SDPBackend.MATH):  # the CPU's fused kernel is none that its counter knows
            functional.scaled_dot_product_attention(q, q, q)

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        call()
    assert counted(call).matmul_flops == counter.get_total_flops() > 0


@pytest.mark.parametrize(
    ("norm_first", "activation", "masked"),
    [(False, "relu", False), (True, "gelu", False), (False, "relu", True)],
)
def test_a_fused_encoder_layer_costs_what_its_parts_do(
    norm_first: bool, activation: str, masked: bool
) -> None:
    """[2, 10, 16], 4 heads, 32 features inside: four projections, attention, two products of the MLP."""
    layer = nn.TransformerEncoderLayer(
        16, 4, 32, batch_first=True, norm_first=norm_first, activation=activation
    ).eval()
    mask = torch.zeros(10, 10, dtype=torch.bool) if masked else None
    x = r(2, 10, 16)
    by_hand = 2 * 20 * (4 * 16 * 16) + 2 * (2 * 10 * 10 * 16) * 2 + 2 * 20 * 2 * (16 * 32)
    fused = counted(lambda: layer(x, mask), "aten._transformer_encoder_layer_fwd")
    layer.register_forward_hook(lambda *_: None)  # switches the fused layer off, and not the attention in it
    name = "aten.scaled_dot_product_attention" if masked else "aten._native_multi_head_attention"
    attended = counted(lambda: layer(x, mask), name)
    assert fused.matmul_flops == attended.matmul_flops == by_hand
    if not masked:  # a mask is made into numbers beside them
        assert fused.other_flops == attended.other_flops
    assert fused.activation_bytes < attended.activation_bytes


def test_sequences_of_unlike_lengths_are_counted_as_padded() -> None:
    """Torch runs an encoder with a mask of padding on nested tensors: sequences of 6 and 10 tokens count as
    two of 10, as they do where the mask is a tensor."""
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).eval()
    padding = torch.arange(10) >= torch.tensor([[6], [10]])
    found = counted(
        lambda: encoder(r(2, 10, 16), src_key_padding_mask=padding), "aten._nested_tensor_from_mask"
    )
    a_layer = 2 * 20 * (4 * 16 * 16) + 2 * (2 * 10 * 10 * 16) * 2 + 2 * 20 * 2 * (16 * 32)
    assert found.matmul_flops == 2 * a_layer


def test_a_net_of_images_is_known_through_and_through() -> None:
    """Norms, pools, resampling, padding and a loss: each element's work by hand, and nothing unknown."""
    x = r(2, 4, 8, 8)
    batch, group, instance = nn.BatchNorm2d(4).eval(), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)
    every = x.numel()
    for call, other in (
        (lambda: batch(x), 4 * every),  # difference, scale, weight, bias
        (lambda: group(x), 7 * every),
        (lambda: instance(x), 7 * every),
        (lambda: functional.max_pool2d(x, 2), every),  # windows of 4, a quarter as many
        (lambda: functional.max_pool2d(x, 3, stride=1), 2 * 4 * 36 * 9),
        (lambda: functional.avg_pool2d(x, 2), every),
        (lambda: functional.adaptive_avg_pool2d(x, 1), every),
        (lambda: functional.adaptive_max_pool2d(x, 3), every),
        (lambda: functional.interpolate(x, scale_factor=2, mode="nearest"), 0),
        (lambda: functional.interpolate(x, scale_factor=2, mode="bilinear"), 2 * 4 * 4 * every),
        (lambda: functional.interpolate(x, scale_factor=2, mode="bicubic"), 2 * 16 * 4 * every),
        (lambda: functional.pad(x, (1, 1, 1, 1), mode="reflect"), 0),
        (lambda: torch.roll(x, 3, 2), 0),
        (
            lambda: functional.grid_sample(x, r(2, 5, 5, 2), align_corners=False),
            2 * 4 * (2 * 4 * 25) + 3 * (2 * 25 * 2),
        ),
        (lambda: functional.pixel_shuffle(x, 2), 0),
        (lambda: functional.unfold(x, 2), 0),
    ):
        assert counted(call).other_flops == other
    logits, labels = r(6, 9), torch.zeros(6, dtype=torch.long)
    assert counted(lambda: functional.cross_entropy(logits, labels)).other_flops == 5 * 54 + 2 * 6
    assert counted(lambda: functional.nll_loss(logits, labels)).other_flops == 6


def test_a_spectrum_is_counted_as_such_libraries_are_compared() -> None:
    """5 n log2 n for 16 complex numbers, half of it for real ones, and so many frames of them."""
    x = r(3, 16)
    once = round(5 * 16 * log2(16))
    assert counted(lambda: torch.fft.fft(x.to(torch.complex64))).other_flops == 3 * once
    assert counted(lambda: torch.fft.rfft(x)).other_flops == 3 * once // 2
    assert counted(lambda: torch.fft.irfft(torch.fft.rfft(x))).other_flops == 3 * once
    window = torch.ones(16)
    frames = 1 + 64 // 8  # the signal is padded by half a window on either side
    spectrum = counted(lambda: torch.stft(r(64), 16, 8, window=window, return_complex=True), "aten.stft")
    assert spectrum.other_flops == frames * (16 + once // 2)


def test_a_bag_reads_the_rows_it_picks() -> None:
    """Four rows of 5 out of 100, added to two bags: 20 additions, and 4 x 5 x 4 bytes of the table."""
    bag, ids = nn.EmbeddingBag(100, 5), torch.tensor([[1, 2], [3, 4]])
    found = counted(lambda: bag(ids), "aten.embedding_bag")
    assert found.other_flops - 2 * 1 <= 4 * 5 + 2  # where the bags begin is counted up beside
    assert found.activation_bytes < 100 * 5 * 4


def test_a_solver_counts_what_lapack_says() -> None:
    """A factorisation of 2/3 n^3, and two triangles of n^2 for each of 3 columns."""
    found = counted(lambda: torch.linalg.solve(r(6, 6) + 6 * torch.eye(6), r(6, 3)), "aten.linalg_solve")
    assert found.matmul_flops == 0
    assert found.other_flops >= 2 * 6**3 // 3 + 2 * 36 * 3
    assert counted(lambda: torch.linalg.inv(r(6, 6))).other_flops == 2 * 6**3


def test_every_operator_that_multiplies_has_a_formula_or_a_reason() -> None:
    """Those of torch's schemas and of its FLOP counter; what its counter counts forward has a formula."""
    for name in page.multiplying():
        assert name in FORMULAS or page.reason(name), (
            f"{name} needs a formula, or a reason in make_operators.py"
        )
    forward = {name for name in page.counted_by_torch() if "backward" not in name}
    assert len(forward) >= 10
    assert not forward - set(FORMULAS)


def test_every_elementwise_op_and_reduction_is_known() -> None:
    """What torch itself tags as pointwise or as a reduction has a formula, in place or not."""
    unknown = set()
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.replace("::", ".")
        packet = getattr(torch.ops.aten, name.partition(".")[2], None) if name.startswith("aten.") else None
        op = getattr(packet, schema.overload_name or "default", None)
        tags = {tag.name for tag in getattr(op, "tags", ())}
        own = "_foreach" in name or "backward" in name or name in FORMULAS
        if tags & {"pointwise", "reduction"} and not own:
            unknown.add(name)
    assert not unknown


def test_the_page_of_operators_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/operators.md is what `make schema` writes."""
    page.main()
    assert capsys.readouterr().out == (ROOT / "docs/operators.md").read_text()
