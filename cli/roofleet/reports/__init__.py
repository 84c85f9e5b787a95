"""What commands print: each takes what was read or counted, and none reads or counts itself."""
