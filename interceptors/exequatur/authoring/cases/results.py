"""Running policy tests: what the policies answer to each case, and whether that was expected.

Rules:

T1  A case passes only if the answer is the expected one, for the expected reasons. A denial that comes from an error
    passes only where the case expects that error.
T2  A case that cannot be asked (an unknown activity, arguments of other types than the schema declares) is an error and
    never passes; except that arguments which the gate itself refuses are the error that such a case may expect.
T3  The same bundle and cases give the same results: nothing of the machine or the present time counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

from exequatur.authoring.cases.case_entities import bundle_with
from exequatur.authoring.cases.cases import Case
from exequatur.authoring.request import Question, ask, question
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.engine import PolicyRef, Verdict
from exequatur.policy.values import convert_plain

Outcome = Literal["passed", "failed", "error"]


@dataclass(frozen=True)
class CaseResult:
    """What came of a case.

    Args:
        case: The case.
        outcome: passed, failed, or error if it could not be asked.
        problem: Why it did not pass.
        verdict: The answer; None if it could not be asked.
        asked: What was asked; None if it could not be, or if the gate refuses such arguments.
    """

    case: Case
    outcome: Outcome
    problem: str | None
    verdict: Verdict | None
    asked: Question | None

    @property
    def where(self) -> str:
        """File, line and column to look at."""
        of_part = self.outcome == "error" and self.problem
        return f"{self.case.file}:{self.case.place_of(self.problem or '') if of_part else self.case.place}"

    def sentences(self, bundle: PolicyBundle) -> tuple[str, ...]:
        """Return why it did not pass and where the policies stand that decided, for people."""
        decided = {policy.id for policy in self.verdict.policies} if self.verdict else set()
        named = [(info.id, bundle.located.get(each)) for each, info in bundle.policies.items() if info.id in decided]
        return (self.problem or "", *(f"{name} is at {place}" for name, place in named if place))


@dataclass(frozen=True)
class Results:
    """What came of all cases, in their order."""

    cases: tuple[CaseResult, ...]

    def of(self, outcome: Outcome) -> tuple[CaseResult, ...]:
        """Return those with one outcome."""
        return tuple(each for each in self.cases if each.outcome == outcome)


def run_cases(bundle: PolicyBundle, cases: Iterable[Case]) -> Results:
    """Ask every case.

    Args:
        bundle: The policies.
        cases: The cases; each stands alone.
    """
    return Results(tuple(run_case(bundle, case) for case in cases))


def run_case(bundle: PolicyBundle, case: Case) -> CaseResult:
    """Ask one case."""
    asked: Question | None = None
    try:
        _check_names(bundle, case)
        own = bundle_with(bundle, case.entities)
        asked = question(
            own,
            principal=case.principal,
            activity=case.activity,
            args=case.args,
            context=case.context,
            resource=case.resource,
            now=case.now,
        )
        verdict = ask(own, asked)
    except PolicyError as error:
        refused = _refused_arguments(bundle, case, str(error))
        if refused is None:  # [T2]
            return CaseResult(case, "error", str(error), None, None)
        verdict = refused
    problem = _problem(bundle, case, verdict)
    return CaseResult(case, "failed" if problem else "passed", problem, verdict, asked)


def _check_names(bundle: PolicyBundle, case: Case) -> None:
    known = {info.id for info in bundle.policies.values()}
    for name in case.by or ():
        if name not in known:
            close = get_close_matches(name, known, 1)
            step = f"Did you mean {close[0]}?" if close else "Correct by:, or the policy's @id."
            raise PolicyError(f"by: there is no policy {name[:80]}. {step}")


def _refused_arguments(bundle: PolicyBundle, case: Case, sentence: str) -> Verdict | None:  # T2
    """What the gate answers to arguments that have no form for Cedar, if that is what cannot be asked."""
    if case.error is None or not isinstance(case.args, dict):
        return None
    declared = bundle.model.actions.get(case.activity) if bundle.model else None
    converted = convert_plain(case.args, declared.args if declared else None)
    fault = converted.fault_for(bundle.reads(case.activity))
    if fault is None or fault[1] not in sentence:  # [T2]
        return None
    return Verdict(False, (), (fault[1],), None, fault=fault[1])


def _problem(bundle: PolicyBundle, case: Case, verdict: Verdict) -> str | None:
    """Why an answer is not the expected one, or None."""
    if verdict.allowed != case.allow:  # [T1]
        return f"expected {_expected(case)}, but {_answer(bundle, case, verdict)}"
    if verdict.errors and case.error is None:  # [T1]
        return f"denied as expected, but by an error: {_errors(verdict)}. If that is meant, write error: with it"
    if case.error is not None and not any(case.error in error for error in verdict.errors):  # [T1]
        told = f"the error is: {_errors(verdict)}" if verdict.errors else _answer(bundle, case, verdict)
        return f"expected an error that says {case.error!r}, but {told}"
    decided = tuple(policy.id for policy in verdict.policies)
    if case.by is not None and set(case.by) != set(decided):  # [T1]
        return f"expected {_expected(case)}, but {_answer(bundle, case, verdict)}"
    if case.reason is not None and not any(case.reason in (policy.reason or "") for policy in verdict.policies):  # [T1]
        return f"expected a denial that says {case.reason!r}, but {_answer(bundle, case, verdict)}"
    return None


def _expected(case: Case) -> str:
    if case.by is None:
        return "allow" if case.allow else "deny"
    if not case.by:
        return "allow by no policy" if case.allow else "deny because no policy permits it"
    return f"{'allow' if case.allow else 'deny'} by {_joined(case.by)}"


def _answer(bundle: PolicyBundle, case: Case, verdict: Verdict) -> str:
    """What the policies said, as the second half of a sentence."""
    if verdict.errors:
        return f"it is denied by an error: {_errors(verdict)}"
    if verdict.allowed:
        return f"{_joined(policy.id for policy in verdict.policies)} {_verb(verdict.policies, 'permit')} it"
    if verdict.policies:
        return f"{_joined(map(_with_reason, verdict.policies))} {_verb(verdict.policies, 'forbid')} it"
    possible = [bundle.policies[each] for each in bundle.applicable(case.activity)]
    permits = [info.id for info in possible if info.effect == "permit"]
    if not permits:
        return f"no policy permits it: there is no permit for {case.activity}"
    named = _joined(permits[:5]) + (f" and {len(permits) - 5} more" if len(permits) > 5 else "")
    return f"no policy permits it: {named} {'do' if len(permits) > 1 else 'does'} not hold"


def _errors(verdict: Verdict) -> str:
    return _joined(error.removesuffix(".") for error in verdict.errors)


def _with_reason(policy: PolicyRef) -> str:
    return f"{policy.id} ({policy.reason})" if policy.reason else policy.id


def _verb(policies: tuple[PolicyRef, ...], verb: str) -> str:
    return verb if len(policies) > 1 else f"{verb}s"


def _joined(parts: Iterable[str]) -> str:
    return " and ".join(parts)
