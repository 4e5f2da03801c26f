"""Audit: verify a workflow history with its evidence, recompute its decisions, and say what was found."""
