"""Recorded decisions, made again under other policies."""
