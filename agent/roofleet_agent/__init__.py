"""Runs models on the machine it is on, measures their layers, and sends what it measured."""

__version__ = "0.1.0"
