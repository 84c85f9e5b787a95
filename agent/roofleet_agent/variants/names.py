"""Names of variants, alone and joined with `+`, as plain values that need no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass

from roofleet_agent.errors import WorkloadRefused

BASE = "base"
QUANTIZED = ("int8-dynamic", "int8-weight-only", "int4-weight-only")
COMPILED = ("compile", "compile-blocks")
STATIC_CACHE = "static-cache"
_PRUNED = re.compile(r"(pruned-structured|pruned)-(\d{1,2})")
KNOWN = (*QUANTIZED, *COMPILED, STATIC_CACHE, "pruned-50", "pruned-structured-50")


@dataclass(frozen=True)
class Variant:
    """What is done to a model: pruned, then quantised, then compiled; each part None where it is not.

    `pruned` and `pruned_structured` are shares of weights, or of intermediate features, taken out.
    """

    pruned: float | None = None
    pruned_structured: float | None = None
    quantized: str | None = None
    compiled: str | None = None
    static_cache: bool = False

    @property
    def name(self) -> str:
        """The canonical name, parts in the order in which they are applied; `base` for none."""
        parts = [
            f"pruned-{round(self.pruned * 100)}" if self.pruned is not None else None,
            f"pruned-structured-{round(self.pruned_structured * 100)}"
            if self.pruned_structured is not None
            else None,
            self.quantized,
            STATIC_CACHE if self.static_cache else None,
            self.compiled,
        ]
        return "+".join(part for part in parts if part) or BASE


def roof_dtype(dtype: str, variant: Variant) -> str:
    """The dtype whose compute roof bounds a run: int8-dynamic multiplies in int8, the others unpack."""
    return "int8" if variant.quantized == "int8-dynamic" else dtype


def parse(text: str) -> Variant:
    """The variant of names joined with `+`; WorkloadRefused for one that is not known or given twice."""
    found: dict[str, object] = {}
    for part in text.strip().split("+"):
        name = part.strip()
        if name == BASE:
            continue
        field, value = _field_of(name)
        if field in found:
            raise WorkloadRefused(f"variant {text!r} says twice what is {field.replace('_', ' ')}: name one")
        found[field] = value
    return Variant(**found)  # type: ignore[arg-type]


def _field_of(name: str) -> tuple[str, object]:
    if name in QUANTIZED:
        return "quantized", name
    if name in COMPILED:
        return "compiled", name
    if name == STATIC_CACHE:
        return "static_cache", True
    pruned = _PRUNED.fullmatch(name)
    if pruned and 0 < int(pruned[2]) < 100:
        return pruned[1].replace("-", "_"), int(pruned[2]) / 100
    raise WorkloadRefused(
        f"there is no variant {name!r}. There are {BASE}, {', '.join(KNOWN)} (of these two any per cent "
        "from 1 to 99), joined with + where they combine, such as pruned-50+int8-dynamic"
    )
