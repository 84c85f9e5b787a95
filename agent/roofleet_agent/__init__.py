"""Runs models on the machine it is on, measures their layers, and sends what it measured."""
