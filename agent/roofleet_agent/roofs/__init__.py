"""Roofs: how they are measured, and what is remembered of a device's between runs."""
