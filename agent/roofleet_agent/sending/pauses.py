"""How long to wait before the next attempt: longer each time, and never at the same moment as others."""

from __future__ import annotations

import random

FIRST_S, LONGEST_S = 0.5, 5.0


class Pauses:
    """Pauses between attempts: twice as long each time, up to a bound, and each by up to a half off that.

    A thousand agents that lost their collector at one moment come back spread over seconds.
    """

    def __init__(self) -> None:
        self._s = FIRST_S

    def begin_anew(self) -> None:
        """An attempt went well: the next pause is short again."""
        self._s = FIRST_S

    def next_s(self) -> float:
        """Seconds to wait before the next attempt."""
        pause, self._s = self._s, min(self._s * 2, LONGEST_S)
        return pause * random.uniform(0.5, 1.5)
