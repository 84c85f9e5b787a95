"""Names of operators as they are stored, such as `aten.linear`."""

from __future__ import annotations

from typing import Any


def op_name(func: Any) -> str:
    """The name of an operator that a dispatch mode sees: namespace and name, without its overload."""
    schema = getattr(func, "_schema", None)
    if schema is None:  # an operator that takes functions, such as flex attention
        return f"higher_order.{func.name()}"
    return f"{func.namespace}.{schema.name.partition('::')[2]}"
