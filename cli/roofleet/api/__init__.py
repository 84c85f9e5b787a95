"""What `import roofleet` gives: a connection, a model watched in the user's code, formulas of their own."""
