"""Takes rows in over gRPC, keeps them in DuckDB, and answers SQL over Arrow Flight."""
