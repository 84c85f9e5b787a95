"""The dashboard: Dash pages over the collector's SQL."""
