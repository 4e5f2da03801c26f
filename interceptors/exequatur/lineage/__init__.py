"""Lineage: the chain inside a run and the evidence journal beside it."""
