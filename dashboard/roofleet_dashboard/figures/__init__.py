"""Figures and elements from rows: rows in, drawing out; no SQL, no callbacks, no files."""
