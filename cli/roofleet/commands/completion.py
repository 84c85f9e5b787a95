"""What the shell is offered for a word that is being typed: models, hardware, variants and runs.

Nothing is raised into somebody's prompt: where it cannot be told, nothing is offered.
"""

from __future__ import annotations

import contextlib

from typer import Context


def models(incomplete: str) -> list[str]:
    """Names of the catalogue; without any the shell offers folders."""
    from roofleet_analysis.catalogs.models import filter_models

    return _beginning(incomplete, [model.name for model in filter_models("")])


def hardware(incomplete: str) -> list[str]:
    """Names of the catalogue of hardware."""
    from roofleet_analysis.catalogs.hardware import hardware as known

    return _beginning(incomplete, ["all", *(chip.name for chip in known())])


def variants(incomplete: str) -> list[str]:
    """Variants, also those joined to what stands before a +."""
    before, plus, last = incomplete.rpartition("+")
    from roofleet_agent.variants.names import KNOWN

    return [before + plus + name for name in _beginning(last, KNOWN) if name not in before.split("+")]


def runs(context: Context, incomplete: str) -> list[tuple[str, str]]:
    """Ids and names of the latest runs, with what they are, of the place that the command names."""
    from roofleet.asking.reading import reading
    from roofleet.asking.runs import latest_names

    found = []
    with contextlib.suppress(Exception):
        with reading(context.params.get("server"), context.params.get("data")) as query:
            found = latest_names(query)
    return [(name, what) for name, what in [("latest", ""), *found] if name.startswith(incomplete)]


def _beginning(incomplete: str, names: list[str] | tuple[str, ...]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
