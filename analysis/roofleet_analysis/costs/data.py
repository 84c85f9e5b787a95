"""Formulas of ops that move data and compute nothing: only what they touch counts."""

from __future__ import annotations

from roofleet_analysis.costs.experts import read_of_experts
from roofleet_analysis.costs.registry import FORMULAS, Op, Work, formula


def _moves(op: Op) -> Work:
    return Work()


# Each input is read once and each output written once.
for _name in (
    "_reshape_alias", "_to_copy", "_unsafe_view", "arange", "broadcast_tensors", "clone", "constant_pad_nd",
    "contiguous", "dropout", "flatten", "flip", "full", "full_like", "lift_fresh", "masked_select",
    "new_ones", "new_full", "new_zeros", "nonzero", "ones", "ones_like", "pad", "repeat",
    "repeat_interleave", "reshape", "roll", "scalar_tensor", "stack", "tile", "to", "type_as",
    "view_as_complex", "zeros", "zeros_like", "linspace", "eye", "rot90", "permute", "transpose", "float",
    "unfold", "expand", "split", "chunk", "view", "slice", "select", "hstack", "vstack", "meshgrid", "polar",
    "rand", "randn", "randint", "rand_like", "randn_like", "randperm", "normal_", "uniform_", "bernoulli",
    "bernoulli_", "multinomial", "dropout_", "alpha_dropout", "feature_dropout", "feature_alpha_dropout",
    "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "native_channel_shuffle", "im2col",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "max_unpool2d", "max_unpool3d",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "_pad_circular", "_pad_enum", "fft_fftshift", "fft_ifftshift", "fliplr", "flipud",
    "block_diag", "column_stack", "dstack", "combinations", "cartesian_prod", "diag", "diag_embed",
    "diagonal_scatter", "complex", "resolve_conj", "resolve_neg", "logspace", "hann_window",
    "hamming_window", "blackman_window", "bartlett_window", "kaiser_window", "fft_fftfreq", "fft_rfftfreq",
    "tril_indices", "triu_indices", "vander", "unique", "_unique2", "unique_consecutive", "argwhere",
    "atleast_1d", "atleast_2d", "atleast_3d", "narrow_copy", "_nested_tensor_from_mask", "to_padded_tensor",
    "_nested_tensor_from_mask_left_aligned", "nested_to_padded_tensor",
):  # fmt: skip
    FORMULAS[f"aten.{_name}"] = _moves

# Nothing is written until somebody fills it, or nothing at all happens.
for _name in ("empty", "empty_like", "new_empty", "empty_strided", "alias", "detach", "detach_", "lift"):
    FORMULAS[f"aten.{_name}"] = lambda op: Work(
        read=dict.fromkeys(range(len(op.inputs)), 0), written=dict.fromkeys(range(len(op.outputs)), 0)
    )


@formula(
    "aten.embedding", "aten.gather", "aten.index", "aten.index_select", "aten.take_along_dim", "aten.take"
)
def gather(op: Op) -> Work:
    # Of the table only what is picked is read: as much as comes out, or all of it if that is less. Rows of
    # experts, which the tokens of a batch pick again and again, are read once each.
    table, out = op.inputs[0], op.outputs[0]
    k = op.attributes.get("experts_per_token")
    if k is not None and out.shape[1:] == table.shape[1:]:
        return Work(read={0: read_of_experts(table, out.shape[0], k)})
    return Work(read={0: min(table.bytes, out.bytes)})


@formula("aten.cat", "aten.concat")
def cat(op: Op) -> Work:
    # Appending to a key-value cache: what must move is what is new. That one cache copies itself to grow
    # and another has room is a matter of the implementation, which must not change the number.
    if op.outputs[0].role == "kv" and any(t.role == "kv" for t in op.inputs):
        old = {i: 0 for i, t in enumerate(op.inputs) if t.role == "kv"}
        new = sum(t.bytes for t in op.inputs if t.role != "kv")
        return Work(read=old, written={0: new})
    return Work()


@formula("aten.copy", "aten.copy_", "aten.fill_", "aten.zero_", "aten.fill")
def overwrite(op: Op) -> Work:
    # target, source -> target: what the target held is not read
    return Work(read={0: 0})


@formula("aten.index_copy_", "aten.index_copy", "aten.index_put_", "aten.index_put", "aten.scatter_",
         "aten.scatter", "aten.slice_scatter", "aten.select_scatter")  # fmt: skip
def scatter(op: Op) -> Work:
    # target, index, source -> target: in place, only what the source brings is written
    source = op.inputs[-1]
    if op.name.endswith("_"):
        return Work(read={0: 0}, written={0: min(source.bytes, op.outputs[0].bytes)})
    return Work()


@formula("aten.index_add_", "aten.index_add", "aten.scatter_add_", "aten.scatter_add")
def scatter_add(op: Op) -> Work:
    # target, index, source -> target: one addition an element of the source
    source = op.inputs[-1]
    if op.name.endswith("_"):
        touched = min(source.bytes, op.outputs[0].bytes)
        return Work(other_flops=source.elements, read={0: touched}, written={0: touched})
    return Work(other_flops=source.elements)
