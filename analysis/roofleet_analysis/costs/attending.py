"""What of attention's work is needed: the pairs its mask lets through, and the cache that they reach.

An op that belongs to an attention layer of known structure carries the attribute `attends`. Beside the sizes
of the layer's step its `work` says what the op's product is there: over pairs of queries and keys (`pairs`),
or over positions of the cache (`positions`), whose results could have been kept. `cache` says that the op
stands for all traffic with one tensor of the cache, which it adds to (`store`) or only reads (`load`). What
else touches the cache there does so in passing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Attending:
    """An attention layer in one step: so many `queries` are held against so many `keys`.

    `cached` tokens came before the first query. With `causal` a query sees itself and what came before it;
    with a `window` of w it sees w positions, itself included; with a `chunk` those since the last multiple of
    it. Without `causal` all see all. ValueError if that makes no sense.
    """

    queries: int
    keys: int
    cached: int
    causal: bool
    window: int | None = None
    chunk: int | None = None

    def __post_init__(self) -> None:
        sizes = (self.queries, self.keys, self.cached + 1, self.window or 1, self.chunk or 1)
        if not all(type(size) is int for size in sizes) or min(sizes) < 1 or (self.window and self.chunk):
            raise ValueError(f"no step of attention: {self}")

    def seen(self) -> int:
        """Pairs of a query and a key that the mask lets through; at most `queries` x `keys`."""
        if not self.causal:
            return self.queries * self.keys
        before = self.keys - self.queries
        if self.chunk is None:
            return _ramp(min(self.cached, before), self.queries, self.window)
        into = self.cached % self.chunk
        first = min(self.queries, self.chunk - into)
        whole, rest = divmod(self.queries - first, self.chunk)
        return (
            _ramp(min(into, before), first, None) + whole * _ramp(0, self.chunk, None) + _ramp(0, rest, None)
        )

    def cache_reached(self) -> int:
        """Positions from before this step that some query sees; at most `keys`."""
        if not self.cached:
            return 0
        if not self.causal:
            return self.keys
        seen = self.cached if self.chunk is None else self.cached % self.chunk
        seen = seen if self.window is None else min(seen, self.window - 1)
        return min(seen, max(self.keys - self.queries, 0))

    def cache_left(self) -> int:
        """New positions that later steps can see, of `queries` many."""
        return self.queries if self.window is None else min(self.queries, self.window - 1)


def _ramp(before: int, count: int, most: int | None) -> int:
    """(before + 1) + (before + 2) + … of so many terms, none of them below 0 or above `most`."""
    if before < 0:
        before, count = 0, max(count + before, 0)
    rising = count if most is None else min(max(most - before, 0), count)
    return rising * before + rising * (rising + 1) // 2 + (count - rising) * (most or 0)


def attending(attributes: Mapping[str, Any]) -> Attending | None:
    """The layer's step an op with these attributes belongs to, if any.

    KeyError, TypeError or ValueError for an `attends` of another form.
    """
    stated = attributes.get("attends")
    if stated is None:
        return None
    if not isinstance(stated, Mapping):
        raise TypeError(f"attends is {stated!r}; it must name the sizes of a step of attention")
    return Attending(**{name: value for name, value in stated.items() if name not in ("work", "cache")})


def needed_work(flops: int, unmasked: int, attributes: Mapping[str, Any]) -> int:
    """Of an op's matrix work what is needed; `unmasked` where no structure is known."""
    step = attending(attributes)
    if step is None or "work" not in attributes["attends"]:
        return unmasked
    if attributes["attends"]["work"] == "pairs":
        return min(unmasked, flops * step.seen() // (step.queries * step.keys))
    return flops * min(step.queries, step.keys) // step.keys


def needed_cache(kv_inputs: Iterable[Held], kv_outputs: Iterable[Held], attributes: Mapping[str, Any]) -> int:
    """Bytes of the cache that are needed of an op of an attention layer, by the cache's tensors it touches:
    those in sight from before the step are read once, the new ones that can be seen later written once."""
    step = attending(attributes)
    kind = attributes["attends"].get("cache") if step else None
    if step is None or kind is None:
        return 0
    positions = step.cache_reached() + (step.cache_left() if kind == "store" else 0)
    held = kv_outputs if kind == "store" else kv_inputs
    return sum(tensor.bytes * positions // tensor.shape[-2] for tensor in held)


class Held(Protocol):
    """A tensor of a cache: [..., positions, features]."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its dimensions."""

    @property
    def bytes(self) -> int:
        """Its storage."""
