"""The Temporal SDK's own tests, run with the plugin added to every client: ``python -m tests.transparency --help``."""
