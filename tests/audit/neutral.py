"""stub"""
from dataclasses import dataclass
@dataclass(frozen=True)
class Neutral:
    where: str
    reason: str
    how: str = "*"
    covered_by: str|None = None
    def matches(self, m, e): return True
NEUTRAL=()
COVERED={}
