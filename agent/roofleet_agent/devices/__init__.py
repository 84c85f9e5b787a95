"""Things that execute: one file a kind, found through the `roofleet.devices` entry points."""
