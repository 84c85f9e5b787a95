"""Takes rows in over gRPC, keeps them in DuckDB, and answers SQL over Arrow Flight."""

__version__ = "0.1.0"
