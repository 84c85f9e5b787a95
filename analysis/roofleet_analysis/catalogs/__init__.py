"""The catalogues: models by their published configuration, hardware by its published roofs.

Both are data (`models.toml`, `hardware.toml`) with one small reader each. Reading them needs neither torch
nor transformers.
"""

import difflib
from collections.abc import Mapping

__all__ = ["nearest_names"]


def nearest_names(key: str, names: Mapping[str, str], n: int) -> list[str]:
    """The entries whose keys look most like `key`, best first.

    `names` maps each key that an entry answers to (its name, its aliases) to the entry's name. Returns at
    most `n` names, each once, and an empty list if nothing looks alike.
    """
    # Several keys may lead to one entry, so ask for more keys than names.
    close = difflib.get_close_matches(key, names, n=max(1, len(names)), cutoff=0.6)
    return list(dict.fromkeys(names[found] for found in close))[:n]
