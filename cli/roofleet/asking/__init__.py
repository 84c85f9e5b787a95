"""Reading what is stored: SQL wherever it lies, and comparisons over it."""
