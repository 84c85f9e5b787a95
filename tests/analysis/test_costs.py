"""Cost formulas, each against its multiplication."""

from __future__ import annotations

import pytest

from roofleet_analysis.costs import FORMULAS, Cost, Op, Tensor, cost_of, formula
from roofleet_analysis.costs.registry import Work


def tensor(*shape: int, dtype: str = "fp32", role: str = "activation", bytes: int | None = None) -> Tensor:
    """An operand stored densely in four bytes an element, unless said otherwise."""
    elements = 1
    for size in shape:
        elements *= size
    return Tensor(shape, dtype, role, 4 * elements if bytes is None else bytes)


def cost(name: str, inputs: list[Tensor], outputs: list[Tensor], **attributes: object) -> Cost:
    """The cost of an op that has a formula."""
    found = cost_of(Op(name, tuple(inputs), tuple(outputs), attributes=attributes))
    assert found is not None
    return found


def test_a_linear_layer_costs_two_operations_a_weight_and_token() -> None:
    """x [4, 6] times w [5, 6] is 2 * 4 * 6 * 5 operations, and a bias one addition an output."""
    x, w, bias, y = tensor(4, 6), tensor(5, 6, role="weight"), tensor(5, role="weight"), tensor(4, 5)
    found = cost("aten.linear", [x, w, bias], [y])
    assert found.matmul_flops == 2 * 4 * 6 * 5  # 240
    assert found.other_flops == 4 * 5
    assert found.weight_bytes == 4 * (5 * 6 + 5)
    assert found.activation_bytes == 4 * (4 * 6 + 4 * 5)


@pytest.mark.parametrize(
    ("name", "inputs", "output", "flops"),
    [
        ("aten.mm", [(4, 6), (6, 5)], (4, 5), 2 * 4 * 6 * 5),
        ("aten.addmm", [(5,), (4, 6), (6, 5)], (4, 5), 2 * 4 * 6 * 5),
        ("aten.bmm", [(3, 4, 6), (3, 6, 5)], (3, 4, 5), 2 * 3 * 4 * 6 * 5),
        ("aten.baddbmm", [(3, 4, 5), (3, 4, 6), (3, 6, 5)], (3, 4, 5), 2 * 3 * 4 * 6 * 5),
        ("aten.matmul", [(2, 3, 4, 6), (2, 3, 6, 5)], (2, 3, 4, 5), 2 * 2 * 3 * 4 * 6 * 5),
        ("aten.matmul", [(6,), (6,)], (), 2 * 6),
        ("aten.matmul", [(4, 6), (6,)], (4,), 2 * 4 * 6),
        ("aten.mv", [(4, 6), (6,)], (4,), 2 * 4 * 6),
        ("aten.dot", [(6,), (6,)], (), 2 * 6),
        ("aten.linear", [(4, 6), (6,)], (4,), 2 * 4 * 6),
        ("aten.mm", [(4, 6), (6, 5), (4, 5)], (4, 5), 2 * 4 * 6 * 5),  # with out=
        ("aten.convolution", [(2, 3, 8), (5, 3, 3)], (2, 5, 6), 2 * (2 * 5 * 6) * (3 * 3)),
    ],
)
def test_every_matrix_product_counts_two_operations_a_multiply_add(
    name: str, inputs: list[tuple[int, ...]], output: tuple[int, ...], flops: int
) -> None:
    """The spelling of a product does not change its count."""
    assert cost(name, [tensor(*shape) for shape in inputs], [tensor(*output)]).matmul_flops == flops


def test_an_einsum_is_the_product_its_equation_says() -> None:
    """b, s, d and h together: 2 * 2 * 4 * 6 * 5, with the heads' dimensions named or as an ellipsis."""
    for equation in ("bsd,hd->bsh", "...d,hd->...h", "bsd,hd"):
        out = tensor(2, 4, 5)
        found = cost("aten.einsum", [tensor(2, 4, 6), tensor(5, 6)], [out], equation=equation)
        assert found.matmul_flops == 2 * 2 * 4 * 6 * 5, equation


def test_an_einsum_of_several_is_products_in_torchs_order() -> None:
    """From the left, [4, 6] @ [6, 5] and then [5, 3]; or as the path says, here the last two first."""
    operands, out = [tensor(4, 6), tensor(6, 5), tensor(5, 3)], [tensor(4, 3)]
    found = cost("aten.einsum", operands, out, equation="ab,bc,cd->ad")
    assert found.matmul_flops == 2 * 4 * 6 * 5 + 2 * 4 * 5 * 3
    found = cost("aten.einsum", operands, out, equation="ab,bc,cd->ad", path=[1, 2, 0, 1])
    assert found.matmul_flops == 2 * 6 * 5 * 3 + 2 * 4 * 6 * 3
    # with a path each product goes to the end: ab with bc, then cd with de, then both
    four, path = [*operands, tensor(3, 2)], [0, 1, 0, 1, 0, 1]
    found = cost("aten.einsum", four, [tensor(4, 2)], equation="ab,bc,cd,de->ae", path=path)
    assert found.matmul_flops == 2 * 4 * 6 * 5 + 2 * 5 * 3 * 2 + 2 * 4 * 5 * 2


def test_an_einsum_that_adds_nothing_up_is_no_matrix_product() -> None:
    """A sum of one operand is 4 * 6 additions; a letter of one side alone is added up before the product."""
    found = cost("aten.einsum", [tensor(4, 6)], [tensor(4)], equation="ab->a")
    assert (found.matmul_flops, found.other_flops) == (0, 4 * 6)
    found = cost("aten.einsum", [tensor(7, 6), tensor(6, 5)], [tensor(5)], equation="ab,bc->c")
    assert (found.matmul_flops, found.other_flops) == (2 * 6 * 5, 7 * 6)
    unknown = Op("aten.einsum", (tensor(2, 3),), (tensor(2),), attributes={"equation": "a->a"})
    assert cost_of(unknown) is None


def test_an_lstm_multiplies_by_its_matrices_at_every_position() -> None:
    """7 positions of 2 sequences, 6 features, 5 hidden, one layer: 2 * 14 * (20 * 6 + 20 * 5)."""
    state = tensor(1, 2, 5)
    weights = [tensor(20, 6, role="weight"), tensor(20, 5, role="weight"), tensor(20), tensor(20)]
    found = cost("aten.lstm", [tensor(7, 2, 6), state, state, *weights], [tensor(7, 2, 5), state, state])
    assert found.matmul_flops == 2 * 14 * (20 * 6 + 20 * 5)
    assert found.other_flops == 14 * (13 * 5 + 2 * 20)  # the gates' arithmetic, and both biases
    assert found.weight_bytes == 4 * (20 * 6 + 20 * 5)


def test_a_gru_and_a_single_cell_count_alike() -> None:
    """Three gates instead of four; a cell is one position of a layer."""
    w, u = tensor(15, 6, role="weight"), tensor(15, 5, role="weight")
    layer = cost("aten.gru", [tensor(1, 2, 6), tensor(1, 2, 5), w, u], [tensor(1, 2, 5), tensor(1, 2, 5)])
    cell = cost("aten.gru_cell", [tensor(2, 6), tensor(2, 5), w, u], [tensor(2, 5)])
    assert layer.matmul_flops == cell.matmul_flops == 2 * 2 * (15 * 6 + 15 * 5)
    assert layer.other_flops == cell.other_flops == 2 * 11 * 5
    w, u = tensor(20, 6, role="weight"), tensor(20, 5, role="weight")
    lstm = cost("aten.lstm_cell", [tensor(2, 6), tensor(2, 5), tensor(2, 5), w, u], [tensor(2, 5)] * 2)
    assert lstm.matmul_flops == 2 * 2 * (20 * 6 + 20 * 5)


def test_a_folded_loop_costs_every_round() -> None:
    """A product of 2 * 4 * 6 * 5 that ran 128 times costs 128 of them, bytes included."""
    operands, out = [tensor(4, 6), tensor(6, 5, role="weight")], [tensor(4, 5)]
    once, loop = cost("aten.mm", operands, out), cost("aten.mm", operands, out, repeat=128)
    assert loop.matmul_flops == 128 * 240
    assert loop.weight_bytes == 128 * once.weight_bytes


def test_flex_attention_counts_like_the_fused_one() -> None:
    """The same shapes give the same products, whatever tables its mask brings."""
    q, kv = tensor(1, 8, 4, 16), tensor(1, 2, 6, 16, role="kv")
    flex = cost("higher_order.flex_attention", [q, kv, kv, tensor(1, 1, 1, 1)], [q, tensor(1, 8, 4)])
    fused = cost("aten.scaled_dot_product_attention", [q, kv, kv], [q], enable_gqa=True)
    assert flex.matmul_flops == fused.matmul_flops == 2 * 8 * 4 * 6 * (16 + 16)
    assert flex.kv_read_bytes == fused.kv_read_bytes


def test_packed_weights_are_products_of_what_goes_in_and_comes_out() -> None:
    """An int4 weight has the shape of its packing: 4 rows, 6 features and 5 outputs tell the product."""
    packed = tensor(5, 3, dtype="uint8", role="weight", bytes=15)
    found = cost("aten._weight_int4pack_mm_for_cpu", [tensor(4, 6), packed], [tensor(4, 5)])
    assert (found.matmul_flops, found.weight_bytes) == (2 * 4 * 6 * 5, 15)
    dynamic = cost("quantized.linear_dynamic", [tensor(4, 6), tensor(5, 6, bytes=30)], [tensor(4, 5)])
    assert dynamic.matmul_flops == 2 * 4 * 6 * 5


def test_operands_a_formula_does_not_know_make_an_op_unknown() -> None:
    """A product without operands has no cost, rather than an error or a zero."""
    assert cost_of(Op("aten.mm", (), ())) is None


def test_an_outer_product_is_elementwise_work() -> None:
    """A product over an inner dimension of 1 adds nothing up: rotary angles are no matrix work."""
    found = cost("aten.matmul", [tensor(1, 32, 1), tensor(1, 1, 8)], [tensor(1, 32, 8)])
    assert (found.matmul_flops, found.other_flops) == (0, 32 * 8)


def test_attention_is_its_two_products_and_a_softmax() -> None:
    """q [1, 2, 4, 8], k and v [1, 2, 6, 8]: 2 * 2 * 4 * 6 * (8 + 8) for the products."""
    q, kv = tensor(1, 2, 4, 8), tensor(1, 2, 6, 8, role="kv")
    found = cost("aten.scaled_dot_product_attention", [q, kv, kv], [q])
    pairs = 2 * 4 * 6
    assert found.matmul_flops == 2 * pairs * (8 + 8)  # 1536
    assert found.causal_flops == found.matmul_flops
    assert found.other_flops == pairs * (1 + 5)  # scale, and softmax's five
    assert found.kv_read_bytes == 2 * kv.bytes


def test_causal_attention_is_counted_dense_with_the_causal_figure_beside() -> None:
    """Of 4 x 4 pairs the masked half leaves 1 + 2 + 3 + 4."""
    q = tensor(1, 1, 4, 8)
    found = cost("aten.scaled_dot_product_attention", [q, q, q], [q], is_causal=True)
    assert found.matmul_flops == 2 * 16 * 16
    assert found.causal_flops == found.matmul_flops * 10 // 16


def test_grouped_queries_read_the_smaller_cache() -> None:
    """8 query heads over 2 key heads: FLOPs follow the queries, bytes the stored keys and values."""
    q, kv = tensor(1, 8, 1, 16), tensor(1, 2, 100, 16, role="kv")
    found = cost("aten.scaled_dot_product_attention", [q, kv, kv], [q], enable_gqa=True)
    assert found.matmul_flops == 2 * 8 * 100 * 32
    assert found.kv_read_bytes == 2 * (2 * 100 * 16 * 4)


def test_grouped_experts_read_the_experts_that_are_met() -> None:
    """16 rows over 4 experts meet 4 * (1 - (3/4)^16) of them, 3.96 on average."""
    w = tensor(4, 8, 12, role="weight")
    found = cost("aten._grouped_mm", [tensor(16, 8), w, tensor(4)], [tensor(16, 12)])
    assert found.matmul_flops == 2 * 16 * 8 * 12
    assert found.weight_bytes == round(w.bytes * (1 - 0.75**16))


def test_a_token_meets_as_many_experts_as_it_is_sent_to() -> None:
    """One token sent to 2 of 8 experts reads exactly 2; 4 tokens read 8 * (1 - (3/4)^4) on average."""
    w = tensor(8, 8, 12, role="weight")
    for tokens, experts in ((1, 2), (4, 8 * (1 - 0.75**4))):
        inputs = [tensor(2 * tokens, 8), w, tensor(8)]
        found = cost("aten._grouped_mm", inputs, [tensor(2 * tokens, 12)], experts_per_token=2)
        assert found.weight_bytes == round(w.bytes / 8 * experts)


def test_experts_that_are_fetched_are_read_once_each() -> None:
    """A batched product fetches 8 matrices for 4 tokens that go to 2 of 8; 8 * (1 - (3/4)^4) are read."""
    table, ids, out = tensor(8, 6, 4, role="weight"), tensor(8), tensor(8, 6, 4)
    found = cost("aten.index", [table, ids], [out], experts_per_token=2)
    assert found.weight_bytes == round(table.bytes / 8 * 8 * (1 - 0.75**4))
    assert found.activation_bytes == ids.bytes + out.bytes


def test_a_lookup_reads_the_rows_it_picks() -> None:
    """Three rows of an embedding of 100 move three rows and their ids."""
    table, ids, out = tensor(100, 8, role="weight"), tensor(1, 3, bytes=24), tensor(1, 3, 8)
    found = cost("aten.embedding", [table, ids], [out])
    assert found.weight_bytes == 3 * 8 * 4
    assert found.activation_bytes == 24 + 3 * 8 * 4


def test_growing_a_cache_costs_what_is_new() -> None:
    """Appending one token to 100 writes one token, however the cache finds room for it."""
    old, new, grown = tensor(1, 2, 100, 8, role="kv"), tensor(1, 2, 1, 8), tensor(1, 2, 101, 8, role="kv")
    found = cost("aten.cat", [old, new], [grown], dim=-2)
    assert (found.kv_read_bytes, found.kv_write_bytes) == (0, new.bytes)


def test_joining_other_tensors_moves_all_of_them() -> None:
    """A concatenation that is no cache reads its inputs and writes its output."""
    part, whole = tensor(2, 3), tensor(4, 3)
    assert cost("aten.cat", [part, part], [whole]).activation_bytes == 2 * part.bytes + whole.bytes


def test_a_view_costs_nothing() -> None:
    """Whatever its name, an op that only gives another view moves and computes nothing."""
    op = Op("aten.no_such_view", (tensor(4, 4),), (tensor(16),), is_view=True)
    assert cost_of(op) == Cost()


def test_an_op_without_a_formula_is_unknown_and_not_zero() -> None:
    """No formula gives None, so that nobody adds up a silent zero."""
    assert cost_of(Op("mine.fused_thing", (tensor(4),), (tensor(4),))) is None


def test_packed_weights_count_as_stored() -> None:
    """int4 weights are half a byte: bytes follow the storage and FLOPs the shape."""
    packed = tensor(5, 6, dtype="int4", role="weight", bytes=15)
    found = cost("aten.linear", [tensor(4, 6), packed], [tensor(4, 5)])
    assert (found.weight_bytes, found.matmul_flops) == (15, 240)


def test_a_formula_is_named_as_torch_names_the_op() -> None:
    """`mine::twice` and `mine.twice` are one operator; a name without a namespace is refused."""
    try:
        formula("mine::twice")(lambda op: Work(other_flops=7))
        assert cost("mine.twice", [tensor(4)], [tensor(4)]).other_flops == 7
    finally:
        FORMULAS.pop("mine.twice")
    with pytest.raises(ValueError, match="namespace"):
        formula("twice")


def test_registering_a_formula_twice_is_an_error() -> None:
    """The second formula for an op is refused, and the first stays."""
    before = FORMULAS["aten.mm"]
    with pytest.raises(ValueError, match=r"aten\.mm has a formula already"):
        formula("aten.mm")(lambda op: Work())
    assert FORMULAS["aten.mm"] is before
