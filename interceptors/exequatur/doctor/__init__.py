"""Looks at a deployment and names what is wrong with it; changes nothing."""
