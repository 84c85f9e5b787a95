"""One figure of a benchmark and the goal it is held against."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A value in a unit (empty for a ratio), and the goal it should not pass; None for a peer's figure."""

    benchmark: str
    name: str
    value: float
    unit: str = ""
    goal: float | None = None
    at_most: bool = True

    @property
    def kept(self) -> bool | None:
        """Whether the goal is kept; None without one."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def as_dict(self) -> dict[str, Any]:
        """For the JSON file."""
        return asdict(self) | {"kept": self.kept}
