"""What a formula is, where it is registered, and how an op's bytes follow from its operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from roofleet_analysis.costs.attending import needed_cache, needed_work

FORMULA_VERSION = 5
"""Raised whenever a formula's result changes: costs stored under an older one are derived again."""


@dataclass(frozen=True)
class Tensor:
    """An operand: `role` is `weight`, `kv` or `activation`; `bytes` is the storage the view covers."""

    shape: tuple[int, ...]
    dtype: str
    role: str
    bytes: int

    @property
    def elements(self) -> int:
        """Product of the shape; 1 for a scalar."""
        product = 1
        for size in self.shape:
            product *= size
        return product


@dataclass(frozen=True)
class Op:
    """One op as traced: operands in the order of its schema, and its scalar arguments."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    is_view: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """What a formula says of an op.

    `matmul_flops` is 2 x multiply-adds of matrix products; `causal_flops` the same without the masked half
    of causal attention (None: nothing is masked); `needed_flops` what no implementation can do without (None:
    all that is not masked); `other_flops` everything else, one for each arithmetic operation, comparison or
    function on an element. `read` and `written` give bytes by operand where they are not simply all of each
    input and each output. `counts_real` says that operations are counted as those of real numbers already,
    whatever the operands.
    """

    matmul_flops: int = 0
    other_flops: int = 0
    causal_flops: int | None = None
    needed_flops: int | None = None
    read: Mapping[int, int] = field(default_factory=dict)
    written: Mapping[int, int] = field(default_factory=dict)
    counts_real: bool = False


@dataclass(frozen=True)
class Cost:
    """Work and traffic of one op, in FLOP and bytes.

    `needed_flops` and `needed_kv_bytes` are those of `matmul_flops` and of the cache's traffic that no
    implementation can do without.
    """

    matmul_flops: int = 0
    causal_flops: int = 0
    other_flops: int = 0
    weight_bytes: int = 0
    activation_bytes: int = 0
    kv_read_bytes: int = 0
    kv_write_bytes: int = 0
    needed_flops: int = 0
    needed_kv_bytes: int = 0


COMPLEX_PRODUCT = 4
"""A complex multiply-add is four real products and four sums, where a real one is one of each."""
COMPLEX_ELEMENT = 2
"""Work on a complex element is counted as work on its two numbers."""

_MAKES_ROOM = frozenset({"aten.zeros", "aten.zeros_like", "aten.full", "aten.full_like"})
"""Ops that write to a cache what a later one overwrites: bytes that move, and that nobody needs."""

Formula = Callable[[Op], Work]
FORMULAS: dict[str, Formula] = {}


def formula(*names: str) -> Callable[[Formula], Formula]:
    """Registers a formula for operators such as `aten.linear`; ValueError if one has a formula already.

    Names may be written as torch writes them: `mylib::scan` is `mylib.scan`.
    """

    operators = [dotted(name) for name in names]

    def register(function: Formula) -> Formula:
        for name in operators:
            if name in FORMULAS:
                raise ValueError(f"{name} has a formula already: {FORMULAS[name].__name__}")
            FORMULAS[name] = function
        return function

    return register


def dotted(name: str) -> str:
    """An operator's name as ops carry it; ValueError for one without a namespace."""
    found = name.replace("::", ".")
    if "." not in found.strip("."):
        raise ValueError(
            f"{name!r} names no operator: give its namespace too, such as mylib::{name or 'scan'}"
        )
    return found


def cost_of(op: Op) -> Cost | None:
    """The cost of an op, None if there is no formula for it or the formula does not know its operands' form.

    Bytes are the compulsory traffic: each input read once and each output written once, by the storage in
    use. A view costs nothing. A weight that is written counts as weight traffic like one that is read. An op
    of a folded loop (attribute `repeat`) costs that many times one round's. Formulas need not know of complex
    numbers: what they count is multiplied here.
    """
    if op.is_view:
        return Cost()
    rule = FORMULAS.get(op.name)
    if rule is None:
        return None
    try:
        work = rule(op)
        causal = work.matmul_flops if work.causal_flops is None else work.causal_flops
        needed = needed_work(work.matmul_flops, causal, op.attributes)
        if "attends" not in op.attributes and work.needed_flops is not None:
            needed = work.needed_flops
        kv_inputs, kv_outputs = ([t for t in side if t.role == "kv"] for side in (op.inputs, op.outputs))
        needed_kv = needed_cache(kv_inputs, kv_outputs, op.attributes)
    except (IndexError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # operands of a form the formula does not know, such as a vector for a matrix
    is_complex = any(t.dtype.startswith("complex") for t in (*op.inputs, *op.outputs))
    products, elements = (COMPLEX_PRODUCT, COMPLEX_ELEMENT) if is_complex and not work.counts_real else (1, 1)
    moved = {"weight": 0, "activation": 0, "kv_read": 0, "kv_write": 0}
    for index, tensor in enumerate(op.inputs):
        role = "kv_read" if tensor.role == "kv" else tensor.role
        moved[role] += work.read.get(index, tensor.bytes)
    for index, tensor in enumerate(op.outputs):
        role = "kv_write" if tensor.role == "kv" else tensor.role
        moved[role] += work.written.get(index, tensor.bytes)
    rounds = op.attributes.get("repeat", 1)
    if "attends" not in op.attributes and op.name not in _MAKES_ROOM:
        needed_kv = moved["kv_read"] + moved["kv_write"]
    return Cost(
        matmul_flops=rounds * products * work.matmul_flops,
        causal_flops=rounds * products * causal,
        other_flops=rounds * elements * work.other_flops,
        weight_bytes=rounds * moved["weight"],
        activation_bytes=rounds * moved["activation"],
        kv_read_bytes=rounds * moved["kv_read"],
        kv_write_bytes=rounds * moved["kv_write"],
        needed_flops=rounds * products * needed,
        needed_kv_bytes=rounds * needed_kv,
    )
