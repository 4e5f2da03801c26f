"""Measurements. Absolute times mean little on a shared machine; the ratios of one run are what counts."""
