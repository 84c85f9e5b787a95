"""How a model may be changed before it runs: names, and what each does to a model."""

from roofleet_agent.variants.names import BASE, Variant, parse
from roofleet_agent.variants.notes import Note

__all__ = ["BASE", "Note", "Variant", "parse"]
