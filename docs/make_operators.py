"""Writes the page of operators: which of torch's have a cost formula, and why others have none.

The list of what multiplies comes from torch itself: from the names of its operator schemas and from the
registry of its own FLOP counter. Run by `make schema`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch.utils.flop_counter import flop_registry

from roofleet_analysis.costs import FORMULAS

NAMESPACES = ("aten", "quantized")
MULTIPLIES = re.compile(
    r"mm(_|$|[a-z]*pack|2d)|matmul|(^|_)(add)?mv$|(^|_)(v|vec|tensor|multi_)?dot$|(^|_)inner$|(^|_)outer$"
    r"|(^|_)ger$|addr$|kron$|einsum|(^|_)(bi|tri)?linear(_|$)|conv(_|\d|olution)|attention|lstm|gru|rnn_|_rnn"
    r"|^_?c?dist$|_dist$|cdist|pdist|distance|embedding_bag|chain|matrix_(power|exp)|transformer_enc"
    r"|linear_combination|^cov$|corrcoef|cholesky|(^|_)lu_(factor|solve|with_info)|_lu$|(^|_)qr$|geqrf|orgqr|ormqr"
    r"|householder|solve|(^|_)p?inv(_ex|erse)?$|tensorinv|(^|_)(log|slog)?det$|svd|(^|_)eig|lstsq|ldl_(factor|solve)|affine_grid"
    r"|fft_[a-z]*fft[2n]?$|fft_[cr]2[cr]|stft"
)
"""Names of operators that multiply matrices, sum products, or factorise and transform what does."""
NO_WORK = re.compile(
    r"prepack|unpack|(gemm|quant)_pack|_upsample|index|flatten_weight|reorder|saturate|quantize_weight|cache"
    r"|search$|^_use_|slice_inverse|^_?(to_|validate_)?sparse_(coo|cs[rc]|bs[rc]|compressed)|(stride|padding|"
    r"dilation|groups|[23]d_transpose)$|convert|^_fft_.*plan"
)
"""Names among them that pack, convert or ask, and compute nothing that counts."""
REASONS = (
    (re.compile(r"backward"), "a backward pass is not profiled"),
    (
        re.compile(r"semi_structured|cslt"),
        "2:4 sparse: half of its products are left out, and no roof here is that of such kernels",
    ),
    (
        re.compile(r"sparse|_spsolve|smm$|sspaddmm|hspmm"),
        "sparse: shapes do not tell how many values there are",
    ),
    (
        re.compile(r"svd|_eig|pinv|lstsq|matrix_exp"),
        "goes on until it converges, or as far as the values ask for",
    ),
    (
        re.compile(r"^aten\._(cudnn|lstm_mps)|^aten\.(miopen|mkldnn)_rnn|^aten\._thnn_fused"),
        "runs inside `aten.lstm`, `aten.gru` or `aten.rnn_*`, which are seen whole",
    ),
    (re.compile(r"_trilinear"), "runs inside `aten.bilinear`, which is seen whole"),
    (
        re.compile(r"quantized_(lstm|gru|rnn)|quantized\.quantized_|_q_dq_"),
        "its weights are packed into an object without shapes",
    ),
    (
        re.compile(r"embedding_bag_"),
        "its rows are packed together with their scales",
    ),
)


def operators() -> Iterator[str]:
    """Every operator of torch in these namespaces, without the forms that write in place or into `out`."""
    schemas = {s.name.replace("::", ".") for s in torch._C._jit_get_all_schemas()}
    for name in sorted(schemas):
        another_form = name.endswith(("_out", "_copy")) or (name.endswith("_") and name[:-1] in schemas)
        if name.partition(".")[0] in NAMESPACES and not another_form:
            yield name


def counted_by_torch() -> set[str]:
    """The operators torch's own FLOP counter knows."""
    return {
        f"higher_order.{op.name()}" if isinstance(op, torch._ops.HigherOrderOperator) else str(op)
        for op in flop_registry
    }


def multiplying() -> list[str]:
    """Operators that multiply: by their names, and those torch's FLOP counter knows."""
    by_name = {
        name
        for name in operators()
        if MULTIPLIES.search(short := name.partition(".")[2])
        and not NO_WORK.search(short)
        and "_foreach" not in short
        and (name in counted_by_torch() or "backward" not in short)
    }
    return sorted(by_name | counted_by_torch())


def reason(name: str) -> str | None:
    """Why an operator has no formula; None if nobody has said why."""
    return next((why for pattern, why in REASONS if pattern.search(name)), None)


def main() -> None:
    """Prints the page."""
    rows = multiplying()
    known = [name for name in rows if name in FORMULAS]
    print("# Operators and their costs\n")
    print("This page is generated: change a formula in `roofleet_analysis/costs/`, then run `make schema`.\n")
    print("An operator without a formula is unknown: it is counted and named in a run's summary, and never a")
    print("silent zero. `roofleet.formula` adds one for an operator of your own. A form that writes in place")
    print(
        "(`aten.addmm_`) counts like the other. A product of complex numbers counts four times a real one.\n"
    )
    print("## Operators that multiply\n")
    print(f"{len(known)} of the {len(rows)} operators of torch {torch.__version__.partition('+')[0]} that")
    print(
        "multiply matrices, sum products, factorise or transform have a formula. The last column says which"
    )
    print("torch's own FLOP counter knows.\n")
    print("| operator | formula in | torch counts it |")
    print("| --- | --- | --- |")
    for name in rows:
        rule = FORMULAS.get(name)
        where = f"none: {reason(name)}" if rule is None else f"`{rule.__module__.rpartition('.')[2]}.py`"
        print(f"| `{name}` | {where} | {'yes' if name in counted_by_torch() else ''} |")
    print("\n## All others with a formula\n")
    others: dict[str, list[str]] = defaultdict(list)
    for name, rule in FORMULAS.items():
        if name not in rows and not (name.endswith("_") and name[:-1] in FORMULAS):
            others[rule.__module__.rpartition(".")[2]].append(name)
    for place in sorted(others):
        print(f"`{place}.py`: " + ", ".join(f"`{name}`" for name in sorted(others[place])) + "\n")


if __name__ == "__main__":
    main()
