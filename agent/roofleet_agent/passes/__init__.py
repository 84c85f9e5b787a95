"""The passes of a run: each takes a loaded model and gives rows; profiling.py says which a run has."""
