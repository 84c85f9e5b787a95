"""Speed, measured: one file a benchmark, each with its peers beside it."""
