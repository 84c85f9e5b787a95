"""`python -m roofleet` is the `roofleet` command."""

import sys

try:
    from roofleet.main import run

    run()
except KeyboardInterrupt:  # while the command itself is still being imported
    sys.exit(130)
