"""Roofleet's processes as services of a host: systemd units, with all that they are not to do."""
