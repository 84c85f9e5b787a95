"""The lock-down: a database that its users' statements cannot lead out of."""

from __future__ import annotations

import duckdb

LOCKS = (
    "SET GLOBAL TimeZone = 'UTC'",  # a plain SET would not reach the cursors that queries run on
    "SET GLOBAL python_enable_replacements = false",
    "SET GLOBAL autoload_known_extensions = false",
    "SET GLOBAL autoinstall_known_extensions = false",
    "SET GLOBAL allow_community_extensions = false",
    "SET GLOBAL allow_persistent_secrets = false",
    "SET GLOBAL enable_external_access = false",
    "SET GLOBAL lock_configuration = true",
)


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """Closes the database off from files, the network and Python's variables, for good.

    Afterwards every connection to this database is closed off, its configuration cannot be changed, and
    timestamps are in UTC. Arrow tables that a connection registers by name can still be read by it.
    """
    for statement in LOCKS:
        connection.execute(statement)
