"""stub"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Neutral:
    where: str
    reason: str
    how: str = "*"
    covered_by: str|None = None
    def matches(self, m, e): return True
NEUTRAL=(Neutral("*","any"),)
COVERED = {
    "times": ("time-unproven","run-exempt"),
    "events": ("events-unproven","run-exempt"),
    "run": ("run-exempt",),
    "run id": ("run-id-unproven","run-exempt"),
    "end": ("seal-missing", "run-open","run-exempt"),
    "fewer activities": ("seal-missing", "run-open","run-exempt"),
    "unproven activities": ("end-unproven","run-exempt","attempt-unaccounted","request-withdrawn","seal-missing","run-open"),
}
