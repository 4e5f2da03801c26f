"""Releases of policies: one signed file, where it is kept, and which of them a worker follows."""
