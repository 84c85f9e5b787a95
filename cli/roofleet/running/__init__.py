"""Runs from a command to where they are stored: one, or the many of a sweep."""
