"""The control workflow: the revocation feed for a fleet that has nothing but Temporal."""
