"""The application of a worker that is tampered with."""
