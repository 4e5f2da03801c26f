"""The signed statements: their models, how they are signed, carried and verified. Nothing here imports Temporal."""
