"""The passes of a run: bare, timed and memory; the trace pass is in `tracing`."""
