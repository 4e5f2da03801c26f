"""The Cedar schema, from the activities' code."""
