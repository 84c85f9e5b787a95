"""What measured shapes and times mean: costs, roofs, memory; pure arithmetic without torch."""
