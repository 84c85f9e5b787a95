"""`roofleet fleet`: who is there, since when, how far behind, and why a reading is missing."""

from __future__ import annotations

import json

import typer

from roofleet import console
from roofleet.commands import options
from roofleet.commands.reaching import reaching
from roofleet.errors import FAILED


@reaching
def fleet(
    server: options.Server = None, data: options.Data = None, json_output: options.Json = False
) -> None:
    """List hosts and their devices: attached since when, what waits there unsent, and what they do now."""
    from roofleet.asking.reading import reading
    from roofleet.reports.fleet import print_fleet, print_retention

    with reading(server, data) as query:
        rows = query("SELECT * FROM fleet_status ORDER BY hostname, host_id, device_id", ()).to_pylist()
        # an older collector has no such table
        told = query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'retention'", ()).num_rows > 0
        done = query("SELECT * FROM retention ORDER BY table_name, what", ()).to_pylist() if told else []
    if json_output:
        print(json.dumps(rows, default=str, indent=1))
    elif rows:
        print_fleet(console.out(), rows)
        print_retention(console.out(), done)
    if not rows:
        console.err().print("no host has registered yet: `roofleet agent --collector HOST:PORT` on one does")
        raise typer.Exit(FAILED)
