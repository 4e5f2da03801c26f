"""The stage of the gate's scenarios, and a ledger on each of the two databases."""

from tests.gate.conftest import executor, stage
from tests.lineage.conftest import postgres, url

__all__ = ["executor", "postgres", "stage", "url"]
