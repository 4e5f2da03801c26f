"""Everything that is wrong with a policy bundle, at once, with file, line and column.

Rules:

K1  Every finding is reported, not the first one: a file, policy or entity that is broken hides no other.
K2  What a worker would refuse is an error here, and no comment can allow it: a bundle without errors loads.
K3  Whatever the texts are, the check returns findings that lie within them; it never raises and never ends the process.
K4  A comment exempts one policy from one rule, by its name; one that names no such rule is itself a finding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cedarpy import Schema

from exequatur.authoring.checks import entity_file, folder, schemas, scopes
from exequatur.authoring.checks.findings import Finding, allowed_rules, without_allowed
from exequatur.authoring.checks.findings import whole_file as about
from exequatur.authoring.checks.folding import constants
from exequatur.authoring.checks.lint import lint
from exequatur.authoring.checks.reading import ReadPolicy, read_policies, unsplit
from exequatur.authoring.checks.texts import Comment, Text, WrittenPolicy, written_policies
from exequatur.authoring.checks.validation import Validation
from exequatur.authoring.checks.world import World
from exequatur.errors import PolicyError
from exequatur.policy.bundle import PolicyBundle
from exequatur.policy.source import MAX_BUNDLE_BYTES, BundleSource

__all__ = ["Checked", "Finding", "check", "check_folder"]


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Args:
        findings: In the order of files and places.
        texts: The files that were read, by name.
        policies: How many policies there are.
    """

    findings: tuple[Finding, ...]
    texts: Mapping[str, Text]
    policies: int

    @property
    def errors(self) -> int:
        """How many findings are errors."""
        return sum(each.severity == "error" for each in self.findings)

    @property
    def warnings(self) -> int:
        """How many are warnings."""
        return len(self.findings) - self.errors


def check(source: BundleSource | str | Path) -> list[Finding]:
    """Return everything that is wrong with a bundle.

    Args:
        source: Its texts, or a folder.

    Raises:
        PolicyError: There is no such folder, or it cannot be read.
    """
    return list((check_source(source) if isinstance(source, BundleSource) else check_folder(source)).findings)


def check_folder(path: str | Path) -> Checked:
    """Check a policy folder, files that are not a part of the bundle included.

    Args:
        path: The folder.

    Raises:
        PolicyError: There is no such folder, or it cannot be read.
    """
    found = folder.read(Path(path))
    if found.source is None:
        texts = {each.name: each for each in found.others}
        return Checked(tuple(sorted(found.findings, key=lambda each: each.order)), texts, 0)
    checked = check_source(found.source)
    unread = any(each.rule == "unreadable" and each.file.endswith(".cedar") for each in found.findings)
    # What is in a file that cannot be read may well be policies.
    complete = [*(each for each in checked.findings if not (unread and each.rule == "no-policies")), *found.findings]
    # A worker's own refusal of a file that cannot be read says nothing more.
    texts = {**checked.texts, **{each.name: each for each in found.others}}
    return Checked(tuple(sorted(set(complete), key=lambda each: each.order)), texts, checked.policies)


def check_source(source: BundleSource) -> Checked:
    """Check a bundle's texts.

    Args:
        source: The texts.
    """
    texts = {file.name: Text(file.name, file.text) for file in source.policies}
    first = next(iter(texts), "policies")
    unusable = _unusable(source)
    if unusable is not None:  # [K3]
        return Checked((unusable,), texts, 0)
    written, read, rest, findings = _policies(list(texts.values()))
    schema, world, more = _surroundings(source, texts)
    findings += more
    findings += _judged(read, schema, world, texts.get(source.schema.name) if source.schema else None)
    if not written:
        findings.append(about("no-policies", first, "there is no policy: everything is denied", "write a permit"))
    if source.schema is None:
        step = "generate it: exequatur policy schema --from MODULE"
        findings.append(about("no-schema", first, "without a schema nothing is compared with the activities", step))
    exempt, wrong = _exemptions(read, written, rest)
    findings = [*without_allowed(findings, exempt), *wrong]  # K4
    if not any(each.binding and each.severity == "error" for each in findings):  # [K2]
        findings += _refused(source, first)
    return Checked(tuple(sorted(findings, key=lambda each: each.order)), texts, len(written))


def _unusable(source: BundleSource) -> Finding | None:
    """A text that is too large to be looked at, or that no file can hold."""
    left = MAX_BUNDLE_BYTES
    for file in (*source.policies, *filter(None, (source.schema, source.entities))):
        try:
            left -= len(file.text.encode())
        except UnicodeEncodeError:
            return about("unreadable", file.name, "there is a lone surrogate, which is not valid Unicode", "remove it")
        if left < 0:
            large = f"with this file the bundle is larger than {MAX_BUNDLE_BYTES >> 20} MiB"
            return about("unreadable", file.name, large, "split the bundle, or remove entities")
    return None


def _policies(
    files: Sequence[Text],
) -> tuple[list[WrittenPolicy], list[ReadPolicy], list[tuple[Text, list[Comment]]], list[Finding]]:
    """All policies, those that parse, the comments behind them, and what is wrong."""
    rest: list[tuple[Text, list[Comment]]] = []
    written: list[WrittenPolicy] = []
    read: list[ReadPolicy] = []
    findings: list[Finding] = []
    for file in files:
        policies, comments = written_policies(file, len(written))
        rest.append((file, comments))
        found, wrong = read_policies(policies)
        findings += wrong
        if not wrong:
            findings += unsplit(file, policies)
        written += policies
        read += found
    return written, read, rest, findings


def _surroundings(source: BundleSource, texts: dict[str, Text]) -> tuple[Schema | None, World, list[Finding]]:
    """Schema and entities; their texts are added to those of the policies."""
    schema, model, documents = None, None, None
    findings: list[Finding] = []
    if source.schema is not None:
        texts[source.schema.name] = Text(source.schema.name, source.schema.text)
        schema, model, findings = schemas.read(texts[source.schema.name])
    if source.entities is not None:
        texts[source.entities.name] = Text(source.entities.name, source.entities.text)
        documents, wrong = entity_file.read(texts[source.entities.name], schema, model)
        findings += wrong
    return schema, World(model, documents), findings


def _judged(read: list[ReadPolicy], schema: Schema | None, world: World, schema_text: Text | None) -> Iterator[Finding]:
    """What parsed policies are judged by."""
    refused: list[Finding] = []
    if schema is not None:
        refused = list(Validation(schema, world).findings(read))
        yield from refused
    yield from scopes.names(read)
    known = constants([part for policy in read for part, _ in policy.conditions])
    wrong = {each.policy for each in refused}
    for policy in read:
        for each in lint(policy, world, known):
            # Cedar has said it already.
            if not (each.rule in ("never-applies", "may-overflow") and each.policy in wrong):
                yield each
    yield from scopes.shadowed(read, world, known)
    if schema_text is not None and read:
        yield from scopes.unused(read, world, known, schema_text)


def _exemptions(
    read: Iterable[ReadPolicy], written: Iterable[WrittenPolicy], rest: Iterable[tuple[Text, list[Comment]]]
) -> tuple[dict[tuple[str, str], frozenset[str]], list[Finding]]:
    """The rules that comments allow, by file and policy, and what is wrong with the comments (K4)."""
    names = {policy.written: policy.name for policy in read}
    exempt: dict[tuple[str, str], frozenset[str]] = {}
    wrong: list[Finding] = []
    for policy in written:
        rules, unknown = allowed_rules(policy.comments, policy.file, at_policy=True)
        wrong += unknown
        if rules and policy in names:
            exempt[policy.file.name, names[policy]] = frozenset(rules)
    for text, comments in rest:
        wrong += allowed_rules(comments, text, at_policy=False)[1]
    return exempt, wrong


def _refused(source: BundleSource, name: str) -> Iterator[Finding]:
    """What only a worker has found (K2)."""
    try:
        PolicyBundle(source)
    except PolicyError as error:
        yield about("refused", name, f"a worker refuses these policies: {str(error).rstrip('.')[:300]}")
