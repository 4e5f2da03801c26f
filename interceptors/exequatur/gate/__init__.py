"""The gate: the interceptors that authorize, enforce and record."""
