"""What can be wrong with bytes that come in."""

from __future__ import annotations


class MalformedMessage(ValueError):
    """Bytes that are not the message they should be, or rows that are not the table's."""
