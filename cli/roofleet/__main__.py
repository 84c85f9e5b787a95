"""`python -m roofleet` is the `roofleet` command."""

from roofleet.main import run

run()
