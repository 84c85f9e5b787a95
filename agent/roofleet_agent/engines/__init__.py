"""Ways to run models: one file each, found through the `roofleet.engines` entry points."""
