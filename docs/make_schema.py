"""Writes the schema page: every table from tables.py and every view from its file. Run by `make schema`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from roofleet_collector.store import DuckDBStore
from roofleet_collector.store.schema import VIEWS, duckdb_type, view_doc
from roofleet_proto.tables import TABLES


def main() -> None:
    """Prints the page."""
    print("# Tables and views\n")
    print("This page is generated: change `tables.py` or a view's file, then run `make schema`.\n")
    print("Views are the interface to rely on; tables are the facts they are made of. Figures are in base")
    print("units, named in the last part of a column's name. Unknown is NULL.\n")
    print("## Views\n")
    with tempfile.TemporaryDirectory() as folder:
        store = DuckDBStore(Path(folder))
        for name in VIEWS:
            view(name, store)
        store.close()
    print("## Functions\n")
    print("| function | gives |\n| --- | --- |")
    print("| `time_at_roof_ns(flops, bytes, compute_roof, memory_roof)` | time at the roofs, in ns |")
    print("| `attainable_flops(flops, bytes, compute_roof, memory_roof)` | FLOP/s the roofs allow it |")
    print("| `bound_by(flops, bytes, compute_roof, memory_roof, time_ns, ops)` | what binds it |")
    print("\n## Tables\n")
    for table in TABLES.values():
        print(f"### {table.name}\n\n{table.doc}", end=" ")
        print("Derived by the collector." if table.derived else "", end="")
        print(f"\n\nKey: {', '.join(f'`{name}`' for name in table.key)}.", end=" ")
        print("A row that comes again replaces the older one." if table.replaces else "Rows are only added.")
        print("\n| column | type | unit | |\n| --- | --- | --- | --- |")
        for column in table.columns:
            null = "" if column.required else ", may be NULL"
            print(
                f"| `{column.name}` | {duckdb_type(column.type)}{null} | {column.unit or ''} | {column.doc} |"
            )
        print()


def view(name: str, store: DuckDBStore) -> None:
    """Prints one view."""
    described = store.query(f"DESCRIBE {name}").read_all().to_pylist()
    types = {row["column_name"]: row["column_type"] for row in described}
    doc = view_doc(name)
    print(f"### {name}\n\n{doc.doc}\n\n| column | type | |\n| --- | --- | --- |")
    for column, sentence in doc.columns.items():
        print(f"| `{column}` | {types[column]} | {sentence} |")
    print()


if __name__ == "__main__":
    main()
