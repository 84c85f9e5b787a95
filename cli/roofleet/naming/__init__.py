"""From what a user types to what is meant: a model, its settings, a folder, an address, a run."""
