"""Tests of policies, as data."""
