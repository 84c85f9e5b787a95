"""What is known of a model before it runs: its costs, its memory and what it fits on."""
