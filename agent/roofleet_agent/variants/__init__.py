"""How a model may be changed before it runs: names, and what each does to a model."""

from roofleet_agent.variants.names import BASE, Variant, parse

__all__ = ["BASE", "Variant", "parse"]
