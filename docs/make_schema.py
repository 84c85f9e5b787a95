"""Writes the schema page: every table from tables.py and every view from its file. Run by `make schema`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from roofleet_collector.store import DuckDBStore
from roofleet_collector.store.schema import VIEWS, duckdb_type, view_doc
from roofleet_proto.tables import TABLES

FUNCTIONS = {
    "is_duration(ns)": "whether a step can take that long",
    "is_interval(start_ns, duration_ns, self_ns)": "whether a span can be one",
    "as_count(x)": "a count of work or bytes; NULL for what cannot be one",
    "as_moment(instant)": "a moment; NULL for what cannot be one, such as the year 200000",
    "run_status(status, started_at, host_seen_at)": "how a run stands, `lost` if nothing was heard of it",
    "time_at_roof_ns(flops, bytes, compute_roof, memory_roof)": "time at the roofs, in ns",
    "attainable_flops(flops, bytes, compute_roof, memory_roof)": "FLOP/s the roofs allow it",
    "bound_by(flops, bytes, compute_roof, memory_roof, time_ns, ops, busy_ns := NULL)": "what binds it",
    "own_ns(self_ns, inner_calls, timer_outside_ns, timer_inside_ns)": "a span's own time, the timer's cost "
    "taken off",
    "t_quantile(freedom)": "t that 97.5 % of Student's distribution lie below",
    "mean_margin(variance, n)": "half of the 95 % confidence interval of a mean; NULL with n under 3",
    "difference_margin(square_a, n_a, square_b, n_b)": "the same of a difference of two means by Welch's t, "
    "from their squared standard errors",
    "median_interval(ordered, independent)": "95 % interval of the median of an ordered list, as `low` and "
    "`high`; NULL with fewer than 6",
    "unknown_pairs(steps, pairs, margin)": "why timed over bare cannot be told; NULL where it can",
    "within_spread(ratio, spread)": "whether repeats of the same run differ as much as that",
    "verdict(ratio, low, high, baseline_noise, noise, spread := NULL)": "`faster`, `slower`, `same` or "
    "`unclear`",
    "beside(middle_a, variance_a, n_a, noise_a, spread_a, middle_b, variance_b, n_b, noise_b, spread_b, "
    "turns_ratio, turns_low, turns_high)": "ratio of two runs with its interval and doubts",
    "why_unclear(ratio, low, high, baseline_noise, noise, spread := NULL)": "why it is `unclear`",
    "interval_noise(low, high)": "why an interval is too wide to rely on; NULL if it is not",
    "conditions_noise(other_load, throttled, clock_low_hz, clock_high_hz)": "what was noisy; NULL if nothing",
    "steps_of(phase, new_tokens)": "steps of a phase in one iteration",
    "rounds_of(attributes)": "how often an op ran in a step, loops unrolled",
    "same_conditions(threads_a, torch_a, driver_a, threads_b, torch_b, driver_b)": "whether a roof "
    "holds for a run's conditions",
    "roof_size(size_bytes)": "size of data from which on nothing stays in caches",
    "at_key(held, key)": "what a map has at a key",
    "products_ns(work, roofs)": "time of matrix products at the roofs of their dtypes",
    "others_ns(work, roofs, compute_roof)": "the same of other work",
    "large_bytes(activations, size_bytes)": "activations of ops that move so much of them",
    "multiplied_in(dtype, variant)": "the dtype whose roof a run is under as a whole",
    "point_doubt(time_ns, unknown_ops, guessed)": "why work or time of an op, layer or step is in doubt",
    "phase_doubt(noise, low, coverage)": "why the times of a phase, or of its layers, are in doubt",
    "roof_fault(flops, skipped_flops, bytes, compute_roof, memory_roof, time_ns, doubt)": "why a point lies "
    "above its roof; NULL where it does not",
}
"""The macros of macros.sql and what each gives; a test compares the names."""


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
    for call, gives in FUNCTIONS.items():
        print(f"| `{call}` | {gives} |")
    print("\n## Tables\n")
    print(
        "A row with a value that its column does not take is set aside in `rejected_rows`, with the reason.\n"
    )
    for table in TABLES.values():
        print(f"### {table.name}\n\n{table.doc}", end=" ")
        print("Derived by the collector." if table.derived else "", end="")
        print(f"\n\nKey: {', '.join(f'`{name}`' for name in table.key)}.", end=" ")
        print("A row that comes again replaces the older one." if table.replaces else "Rows are only added.")
        print("\n| column | type | unit | takes | |\n| --- | --- | --- | --- | --- |")
        for column in table.columns:
            null = "" if column.required else ", may be NULL"
            takes = "" if table.derived or column.takes is None else column.takes.says
            print(
                f"| `{column.name}` | {duckdb_type(column.type)}{null} | {column.unit or ''} | {takes} | "
                f"{column.doc} |"
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
