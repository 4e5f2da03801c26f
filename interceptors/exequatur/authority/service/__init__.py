"""The authority as a service: what it takes and answers over HTTP."""
