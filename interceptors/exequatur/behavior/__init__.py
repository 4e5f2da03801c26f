"""Behaviour: what principals and runs did before, what is usual, and how unusual something is."""
