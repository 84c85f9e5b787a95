"""Which statements the engine can be interrupted in: those whose functions take little time and room a row.

The engine looks at an interrupt between chunks of some thousand rows. A function that takes long for one row
(`levenshtein` of two texts of a megabyte), or makes much of it (`repeat`), keeps it from looking. What is not
known to be harmless runs apart, in a process that can be ended; one that is missing here just costs time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from roofleet_collector.store.engine import arguments, constant

_HARMLESS = """
+ - * / // % ^ ** & | ~ << >> @ abs ceil ceiling floor round trunc sqrt cbrt exp ln log log2 log10 pow power
sign sin cos tan asin acos atan atan2 cot degrees radians pi greatest least mod xor even isnan isfinite
isinf gcd lcm add subtract multiply divide random hash count count_star sum avg mean min max min_by max_by
arg_min arg_max any_value first last arbitrary median mode quantile quantile_cont quantile_disc stddev
stddev_pop stddev_samp variance var_pop var_samp corr covar_pop covar_samp regr_slope regr_intercept regr_r2
regr_count regr_avgx regr_avgy bool_and bool_or bit_and bit_or bit_xor approx_count_distinct approx_quantile
product kurtosis skewness entropy fsum favg kahan_sum sumkahan sum_no_overflow geomean geometric_mean mad
sem count_if countif row_number rank dense_rank rank_dense percent_rank cume_dist ntile lag lead first_value
last_value nth_value lower upper lcase ucase length len strlen substr substring left right trim ltrim rtrim
starts_with ends_with prefix suffix contains position instr strpos ascii split_part md5 ~~ !~~ ~~* !~~*
concat || concat_ws list_value struct_pack row date_part datepart date_trunc datetrunc date_diff datediff
date_sub datesub date_add extract epoch epoch_ms epoch_us epoch_ns now get_current_timestamp
current_timestamp current_date today make_timestamp make_date make_timestamptz strftime to_timestamp
to_seconds to_minutes to_hours to_days to_milliseconds to_microseconds age year month day hour minute second
millisecond microsecond week weekday dayofweek dayofyear quarter isodow yearweek dayname monthname last_day
time_bucket timezone typeof struct_extract array_extract list_extract list_element list_contains list_has
list_min list_max
array_contains unnest array_length -> ->> json_extract json_extract_string json_extract_path
json_extract_path_text json_valid json_type json_array_length if ifnull nullif coalesce current_schema
current_database current_schemas version error
"""
_OURS = "as_moment as_count is_duration is_interval run_status"
"""Macros of the views (macros.sql) that queries call too: comparisons of one value."""
HARMLESS = frozenset(f"{_HARMLESS} {_OURS}".split())

GROWING = frozenset({"concat", "||", "concat_ws", "list_value", "struct_pack", "row"})
MAX_GROWING = 16
"""How many values that are no constants may be put together, over the whole statement: a text put after
itself in each of thirty queries within one another has 2^30 times its length; sixteen make it 256 times."""


LIKE = frozenset({"~~", "!~~", "~~*", "!~~*"})
MAX_WILDCARDS = 2
"""In a pattern: the engine tries the rest of a text for each `%`, so time grows by a power for each."""


def must_run_apart(nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether a statement, by the nodes of its tree, might not let itself be interrupted."""
    # what stands in FROM gives its rows in chunks, however many there are
    in_from = {id(node["function"]) for node in nodes if node.get("type") == "TABLE_FUNCTION"}
    growing, recursive = 0, False
    for node in nodes:
        kind, name = node.get("type"), str(node.get("function_name") or "").lower()
        recursive = recursive or kind == "RECURSIVE_CTE_NODE"
        if kind == "ARRAY_CONSTRUCTOR" or name in GROWING:
            growing += sum(child.get("class") != "CONSTANT" for child in arguments(node))
        if kind == "LAMBDA" or (name and name not in HARMLESS and id(node) not in in_from):
            return True
        if name in LIKE and not _has_simple_pattern(node):
            return True
    return growing > (0 if recursive else MAX_GROWING)


def simple_pattern(pattern: object) -> bool:
    """Whether a value may be matched against by LIKE without running apart."""
    return not isinstance(pattern, str) or (pattern.count("%") <= MAX_WILDCARDS and "_" not in pattern)


def _has_simple_pattern(node: dict[str, Any]) -> bool:
    _, pattern = arguments(node)
    if pattern.get("class") == "CONSTANT":
        return simple_pattern(constant(pattern))
    return bool(pattern.get("class") == "PARAMETER")  # its value is looked at when it is there
