"""What can be configured, and the one place where it is read.

A setting is taken from the first of: code, the environment (``EXEQUATUR_`` and the field's name in capitals),
``exequatur.toml`` (in the working directory, or the file that ``EXEQUATUR_CONFIG`` names), its default.

Rules:

* S1. Nothing is ignored: an unknown keyword, variable or key is an error, and so is a named file that is not there.
* S2. A value is used as it was meant or refused: no duration without bounds, no glob where a name is expected.
* S3. Settings that contradict each other, or would open the gate by accident, are refused together (``_COMBINATIONS``).
* S4. All that is wrong is reported at once; each line names where the value came from and the next step.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from exequatur.errors import ConfigurationError

PREFIX = "EXEQUATUR_"
CONFIG_VARIABLE = "EXEQUATUR_CONFIG"
CONFIG_FILE = "exequatur.toml"

_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|m|h|d)?\Z", re.ASCII)
_NOT_A_DURATION = "not a duration; write it as 250ms, 30s, 5m, 1h, 1d, PT5M or a number of seconds"
# Ten years: more is a slip of the unit, and every date computed from it stays representable.
_LONGEST = timedelta(days=3650)
# A shorter interval would spin.
_SHORTEST = timedelta(milliseconds=1)


def _duration(value: object) -> object:
    try:
        if isinstance(value, str) and (match := _DURATION.match(value.strip())):
            return float(match["number"]) * _UNITS[match["unit"] or "s"]
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return timedelta(seconds=value)
    except OverflowError:
        raise ValueError(f"too long; at most {duration_text(_LONGEST)}") from None
    # Pydantic reads ISO 8601 durations; it would also take "00:05" and "1 day", whose meaning is a guess.
    if isinstance(value, timedelta) or (isinstance(value, str) and value.strip().startswith("P")):
        return value.strip() if isinstance(value, str) else value
    raise ValueError(_NOT_A_DURATION)


def _at_least(shortest: timedelta) -> Callable[[timedelta], timedelta]:
    def bounded(value: timedelta) -> timedelta:
        if not shortest <= value <= _LONGEST:
            raise ValueError(f"must be between {duration_text(shortest)} and {duration_text(_LONGEST)}")
        return value

    return bounded


def _exact(name: str) -> str:
    if "*" in name:
        raise ValueError("takes exact workflow types, not globs; list each type")
    return name


Duration = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_at_least(timedelta()))]
Interval = Annotated[timedelta, BeforeValidator(_duration), AfterValidator(_at_least(_SHORTEST))]
Glob = Annotated[str, Field(min_length=1)]
WorkflowType = Annotated[str, Field(min_length=1), AfterValidator(_exact)]


def duration_text(value: timedelta) -> str:
    """A duration in the form in which settings are written.

    Args:
        value: A duration that is not negative.

    Returns:
        For example ``"250ms"`` or ``"24h"``; the largest unit below a day that divides it.
    """
    for unit in ("h", "m", "s", "ms"):
        if value and not value % _UNITS[unit]:
            return f"{value // _UNITS[unit]}{unit}"
    return f"{value.total_seconds():g}s"


class ObserveRule(BaseModel):
    """Where the gate only observes; all three globs must match.

    Args:
        namespace: Glob of Temporal namespaces.
        task_queue: Glob of the activities' task queues.
        activity: Glob of activity types.

    Raises:
        pydantic.ValidationError: The rule would match everything, or a glob is empty.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespace: Glob = "*"
    task_queue: Glob = "*"
    activity: Glob = "*"

    @model_validator(mode="after")
    def _narrow(self) -> Self:
        if all(set(glob) == {"*"} for glob in (self.namespace, self.task_queue, self.activity)):
            raise ValueError('matches everything; give a namespace, task_queue or activity, or set mode = "observe"')
        return self

    def matches(self, namespace: str, task_queue: str, activity: str) -> bool:
        """Whether the rule applies to an activity, by case-sensitive globs."""
        return (
            fnmatchcase(namespace, self.namespace)
            and fnmatchcase(task_queue, self.task_queue)
            and fnmatchcase(activity, self.activity)
        )


class Settings(BaseModel):
    """All settings of a plugin. Use :meth:`load`; the constructor reads neither file nor environment.

    Raises:
        pydantic.ValidationError: From the constructor, for a value or a combination that cannot work.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trust_domain: str = Field(
        "exequatur.local",
        # SPIFFE ID, section 2.1: lower-case letters, digits, dots, dashes and underscores, at most 255 bytes.
        pattern=r"\A[a-z0-9._-]{1,255}\z",
        description="SPIFFE trust domain in which grants and credentials are issued and accepted.",
    )
    cluster: str = Field(
        "default",
        pattern=r"\A[A-Za-z0-9._-]{1,255}\z",
        description="Name of the Temporal cluster; a grant for one cluster is refused in another.",
    )
    mode: Literal["enforce", "observe"] = Field(
        "enforce",
        description="`enforce` blocks what is not authorized; `observe` only decides, signs and journals.",
    )
    observe: tuple[ObserveRule, ...] = Field(
        (),
        description="Where to observe although the mode is `enforce`: globs of `namespace`, `task_queue`, `activity`.",
    )
    allow_ungoverned: tuple[WorkflowType, ...] = Field(
        (),
        description="Workflow types whose runs may act without a grant, as the principal `Unauthenticated`.",
    )
    recorded_queues: tuple[Glob, ...] = Field(
        (),
        description="Globs of task queues whose results may come without a receipt; the audit calls those unproven.",
    )
    continues_as: dict[WorkflowType, tuple[WorkflowType, ...]] = Field(
        {},
        description="Workflow type to the other types that its runs may continue as new.",
    )
    open_messages: tuple[Glob, ...] = Field(
        (),
        description="Globs of `kind:name`, for example `query:__temporal_workflow_metadata`, of the signals, queries "
        "and updates that a run takes without a permit.",
    )
    grant_ttl: Interval = Field(timedelta(hours=24), description="How long a grant is valid.")
    schedule_grant_ttl: Interval = Field(
        timedelta(days=90),
        description="How long the grant of a schedule is valid; updating the schedule makes another.",
    )
    max_lifetime: Duration = Field(
        timedelta(days=30),
        description="How long after its first grant a run may have that renewed, where policies permit `grant.renew`.",
    )
    permit_ttl: Interval = Field(
        timedelta(hours=24),
        description="How long a client's permit for one signal or activity is valid, so that it may wait for a worker; "
        "for a query, update or Nexus operation it is an hour at most.",
    )
    approval_wait: Interval = Field(
        timedelta(days=7), description="How long a run waits for approvals at most; a policy may ask for less."
    )
    start_within: Interval = Field(
        timedelta(minutes=1), description="How soon after its grant was issued a run must start."
    )
    credential_ttl: Interval = Field(timedelta(hours=1), description="How long a worker's credential is valid.")
    worker_name: Annotated[str, Field(pattern=r"\A[A-Za-z0-9._-]{1,100}\z")] | None = Field(
        None,
        description="What a plugin that is its own authority calls this worker in credentials and receipts; host and "
        "process id without it.",
    )
    clock_leeway: Duration = Field(
        timedelta(seconds=30), description="How far the clocks of two machines may be apart."
    )
    schedule_bound: Interval = Field(
        timedelta(minutes=10),
        description="How far an activity's scheduled time may be from the time in its signed request.",
    )
    recheck_interval: Duration = Field(
        timedelta(milliseconds=100),
        description="Heartbeats re-check at most this often while nothing has changed.",
    )
    watchdog_interval: Interval = Field(
        timedelta(milliseconds=250), description="How often activities that do not heartbeat are re-checked."
    )
    policy_poll_interval: Interval = Field(
        timedelta(milliseconds=250), description="How often the policy folder or bundle file is looked at for changes."
    )
    policy_fetch_interval: Interval = Field(
        timedelta(seconds=30), description="How often a server or store is asked whether it has another policy bundle."
    )
    policy_keys: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="JWK set of the policy keys; with it, only bundles that one of them released are put in force.",
    )
    policy_name: str = Field(
        "policies",
        pattern=r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,99}\z",
        description="Name that the followed policies are released under; a release under another name is refused.",
    )
    shadow_policies: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Candidate policies, as a folder or bundle file: every decision is compared with theirs, which is "
        "counted and journaled and never enforced.",
    )
    unavailable_wait: Duration = Field(
        timedelta(seconds=5), description="How long an attempt waits for a decision that cannot be made now."
    )
    unavailable_retry_delay: Interval = Field(
        timedelta(seconds=5), description="When to retry an attempt that waited in vain."
    )
    max_delegation_depth: Annotated[int, Field(strict=True, ge=1, le=16)] = Field(
        8, description="How many child workflows deep a grant may be delegated, 1 to 16."
    )

    evidence_store: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Shared store that the journal is shipped to: a SQLite file or `postgresql://…`; needs "
        "`exequatur[store]`.",
    )
    ship_interval: Interval = Field(timedelta(seconds=5), description="How often the journal is shipped.")
    shared_state: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Database in which hosts share what a grant or permit served and what principals did: a SQLite "
        "file or `postgresql://…`; needs `exequatur[store]`. Without it each journal counts for itself.",
    )
    authority_timeout: Interval = Field(
        timedelta(seconds=10), description="How long an authority service may take to answer."
    )
    authority_ca: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="PEM file of the certificate authorities that the authority service's certificate may be from; "
        "without it, the system's and those of `SSL_CERT_FILE`.",
    )
    revocation_feed: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Where revocations are followed: a folder, the URL of an authority service, or `temporal` for the "
        "control workflow of the worker's namespace. Without it, the state folder or the plugin's authority.",
    )
    revocation_freshness: Interval = Field(
        timedelta(seconds=15),
        description="How old the signed head of a followed feed may be; beyond it nothing is known to be allowed.",
    )
    integrity_manifest: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Signed manifest of what this worker must be; it is verified at start and again and again."
    )
    integrity_keys: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="JWK set of the keys that may sign manifests."
    )
    integrity_interval: Interval = Field(
        timedelta(seconds=2), description="How often files and objects are looked at for changes."
    )
    integrity_full_interval: Interval = Field(
        timedelta(minutes=10), description="How often every measured file is read again."
    )
    environment: Annotated[str, Field(min_length=1, max_length=100)] | None = Field(
        None, description="Name of the environment, for example `production`, told to policies."
    )
    image_digest: Annotated[str, Field(pattern=r"\Asha256:[0-9a-f]{64}\z")] | None = Field(
        None, description="Digest of the container image that this process runs in."
    )
    instance_document: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="Signed instance identity document of this machine, for attestation."
    )
    instance_trust: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="TOML file of the machines whose identity documents count, for whoever issues credentials."
    )
    identity_config: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="TOML file that says which credentials a plugin that is its own authority believes; see "
        "`docs/identity.md`. Without it, `acting_as` takes principals only.",
    )
    behavior_baseline: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="What is usual, as learned by `exequatur behavior learn`; told to policies as novelty."
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        broken = [rule for rule in _COMBINATIONS if rule.broken(self)]
        if broken:
            text = "; ".join(f"{' and '.join(rule.fields)}: {rule.why}" for rule in broken)
            raise PydanticCustomError("impossible", "{text}", {"text": text, "broken": broken})
        return self

    @classmethod
    def load(cls, **code: Any) -> Self:
        """Read the settings from code, the environment, ``exequatur.toml`` and the defaults, in this precedence.

        Args:
            code: Settings by field name.

        Returns:
            The settings, complete and consistent.

        Raises:
            ConfigurationError: An unknown name, a bad value, an unreadable file or an impossible combination; each is
                named with where it came from and the next step.
        """
        file, in_file = _read_file()
        problems = [
            *(f"{name} given in code: {_unknown(name)}" for name in code if name not in cls.model_fields),
            *(f"{file}: {name}: {_unknown(name)}" for name in in_file if name not in cls.model_fields),
        ]
        values = dict(in_file)
        origins = {name: f"{name} in {file}" for name in in_file}
        for variable, text in os.environ.items():
            if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
                continue
            name = variable.removeprefix(PREFIX).lower()
            if name not in cls.model_fields or variable != variable_of(name):
                problems.append(f"environment variable {variable}: {_unknown(name, variable_of)}")
                continue
            origins[name] = f"environment variable {variable}"
            try:
                values[name] = _from_environment(name, text)
            except ValueError as error:
                if name not in code:
                    problems.append(f"{origins[name]}: {error}")
        values |= code
        origins |= {name: f"{name} given in code" for name in code}
        try:
            settings = cls.model_validate({name: value for name, value in values.items() if name in cls.model_fields})
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                problems.extend(_explain(detail, origins))
            raise _refused(problems) from None
        if problems:
            raise _refused(problems)
        return settings

    def observes(self, namespace: str, task_queue: str, activity: str) -> bool:
        """Whether an activity is only observed, not enforced."""
        return self.mode == "observe" or any(rule.matches(namespace, task_queue, activity) for rule in self.observe)

    def recorded(self, task_queue: str) -> bool:
        """Whether results from a task queue may come without a receipt."""
        return any(fnmatchcase(task_queue, glob) for glob in self.recorded_queues)


class _Combination(NamedTuple):
    fields: tuple[str, ...]
    broken: Callable[[Settings], bool]
    why: str


_COMBINATIONS = (
    _Combination(
        ("mode", "observe"),
        lambda s: s.mode == "observe" and bool(s.observe),
        'mode "observe" observes everywhere, so rules beside it say nothing; remove the rules, or set mode = "enforce"',
    ),
    _Combination(
        ("credential_ttl",),
        lambda s: s.credential_ttl < timedelta(minutes=1),
        "a worker cannot renew its credential more than once a minute; set it to 1m or more",
    ),
    _Combination(
        ("grant_ttl", "start_within"),
        lambda s: s.grant_ttl < s.start_within,
        "a grant must not end before its run may start; raise grant_ttl or lower start_within",
    ),
    _Combination(
        ("clock_leeway",),
        lambda s: s.clock_leeway > timedelta(minutes=5),
        "every expired statement would live on for that long; set it to 5m or less and synchronize the clocks",
    ),
    _Combination(
        ("watchdog_interval",),
        lambda s: s.watchdog_interval > timedelta(seconds=5),
        "a revoked activity would run on for that long; set it to 5s or less",
    ),
    _Combination(
        ("schedule_bound", "clock_leeway"),
        lambda s: s.schedule_bound < s.clock_leeway,
        "clocks that are allowed to differ would break every request; raise schedule_bound or lower clock_leeway",
    ),
    _Combination(
        ("integrity_manifest", "integrity_keys"),
        lambda s: s.integrity_manifest is not None and s.integrity_keys is None,
        "a manifest proves nothing without the keys that may sign it; set integrity_keys as well",
    ),
    _Combination(
        ("integrity_interval",),
        lambda s: s.integrity_interval > timedelta(minutes=1),
        "a changed file would go unnoticed for that long; set it to 1m or less",
    ),
    _Combination(
        ("revocation_freshness",),
        lambda s: s.revocation_freshness > timedelta(minutes=10),
        "whoever withholds the feed could keep a revocation from workers for that long; set it to 10m or less",
    ),
    _Combination(
        ("unavailable_wait",),
        lambda s: s.unavailable_wait > timedelta(minutes=1),
        "a worker's slots would be held by activities that cannot run; set it to 1m or less",
    ),
)

_LISTS = ("allow_ungoverned", "recorded_queues", "open_messages")
_JSON = {"observe": '[{"task_queue": "batch-*"}]', "continues_as": '{"Order": ["OrderV2"]}'}


def variable_of(name: str) -> str:
    """The environment variable of a setting, for example ``EXEQUATUR_GRANT_TTL`` of ``grant_ttl``."""
    return PREFIX + name.upper()


def _read_file() -> tuple[Path, dict[str, Any]]:
    named = os.environ.get(CONFIG_VARIABLE)
    if named == "":
        raise ConfigurationError(f"{CONFIG_VARIABLE} is empty; name a file in it or unset it")
    file = Path.cwd() / CONFIG_FILE if named is None else Path(named)
    hint = "" if named is None else f" (named by {CONFIG_VARIABLE})"
    try:
        return file, tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        # A dangling link is not "no file": somebody wanted it read.
        if isinstance(error, FileNotFoundError) and named is None and not file.is_symlink():
            return file, {}
        reason = error.strerror or type(error).__name__
        raise ConfigurationError(f"{file}{hint} cannot be read: {reason}; make it a readable file") from None
    except (ValueError, RecursionError) as error:  # TOML that does not parse, or bytes that are not UTF-8
        raise ConfigurationError(f"{file}{hint} is not valid TOML: {error}; correct it there") from None


def _from_environment(name: str, text: str) -> object:
    if name in _JSON or (name in _LISTS and text.lstrip().startswith("[")):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            example = _JSON.get(name, '["A", "B"]')
            raise ValueError(f"is not valid JSON; write it as {example}") from None
    if name in _LISTS:
        return [item.strip() for item in text.split(",")] if text.strip() else []
    if name == "max_delegation_depth" and re.fullmatch(r"\d{1,9}", text.strip(), re.ASCII):
        return int(text)
    return text


def _unknown(name: str, spell: Callable[[str], str] = str) -> str:
    close = get_close_matches(name, Settings.model_fields, n=1)
    step = f"did you mean {spell(close[0])}?" if close else "remove it; docs/settings.md lists all settings"
    return f"there is no such setting; {step}"


def _explain(detail: ErrorDetails, origins: Mapping[str, str]) -> list[str]:
    """The lines that tell a person about one of Pydantic's errors."""
    if detail["type"] == "impossible":
        return [_explain_combination(rule, origins, detail["input"]) for rule in detail["ctx"]["broken"]]
    name, *path = detail["loc"]
    where = origins[str(name)] + "".join(f", item {part}" if isinstance(part, int) else f", {part}" for part in path)
    if detail["type"] == "extra_forbidden":
        return [f"{where}: there is no such key; a rule has {', '.join(ObserveRule.model_fields)}"]
    what = detail["msg"].removeprefix("Value error, ")
    if detail["type"].startswith("time_delta"):
        what = _NOT_A_DURATION
    elif detail["type"] == "string_pattern_mismatch" and name == "image_digest":
        what = "write it as sha256: and 64 hexadecimal digits in lower case"
    elif detail["type"] == "string_pattern_mismatch":
        letters = "lower-case letters" if name == "trust_domain" else "letters"
        longest = 100 if name == "policy_name" else 255
        what = f"use {letters}, digits, dots, dashes and underscores, 1 to {longest} of them"
    value = repr(detail["input"])
    shown = value if len(value) <= 60 else f"{value[:57]}..."
    step = f"correct it, or leave it out for the default ({_default_text(str(name))})"
    return [f"{where} is {shown}: {what[0].lower()}{what[1:]}; {step}"]


def _explain_combination(rule: _Combination, origins: Mapping[str, str], given: Mapping[str, Any]) -> str:
    sources = [
        f"{origins[name]} is {given[name]!r}" if name in given else f"{name} is {_default_text(name)} by default"
        for name in rule.fields
    ]
    return f"{' and '.join(sources)}: {rule.why}"


def _refused(problems: list[str]) -> ConfigurationError:
    if len(problems) == 1:
        return ConfigurationError(problems[0])
    return ConfigurationError("\n".join([f"{len(problems)} settings cannot be used:", *(f"- {p}" for p in problems)]))


def _default_text(name: str) -> str:
    default = Settings.model_fields[name].default
    if isinstance(default, timedelta):
        return duration_text(default)
    return "none" if default in ((), {}) else str(default)


def settings_table() -> str:
    """The settings as a Markdown table: name, environment variable, default, meaning."""
    rows = [
        f"| `{name}` | `{variable_of(name)}` | `{_default_text(name)}` | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(["| setting | environment variable | default | meaning |", "|---|---|---|---|", *rows, ""])


def settings_page() -> str:
    """The text of ``docs/settings.md``."""
    combinations = [f"- `{'`, `'.join(rule.fields)}`: {rule.why}." for rule in _COMBINATIONS]
    return "\n".join([_PAGE, settings_table(), "## Refused combinations", "", *combinations, ""])


_PAGE = """\
# Settings

<!-- Generated from interceptors/exequatur/settings.py by `make docs`. -->

A setting is taken from the first of: code (`Settings.load(grant_ttl="8h")`), the environment, `exequatur.toml`, its
default. The file is looked for in the working directory, or is the one that `EXEQUATUR_CONFIG` names. Unknown names,
bad values and impossible combinations fail at start.

Durations are written `250ms`, `30s`, `5m`, `1h`, `1d`, in ISO 8601 (`PT5M`) or as a number of seconds. In the
environment a list is separated by commas or JSON; `observe` and `continues_as` are JSON.

```toml
# exequatur.toml
trust_domain = "acme.example"
grant_ttl = "8h"
allow_ungoverned = ["NightlyReport"]

[continues_as]
Order = ["OrderV2"]

[[observe]]
task_queue = "batch-*"
```
"""
