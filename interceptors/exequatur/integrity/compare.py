"""What differs between two measurements, a sentence each. A pure function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from exequatur.integrity.manifest import Distribution, Interpreter, Measurement


def differences(expected: Measurement, found: Measurement) -> list[str]:
    """What differs.

    Args:
        expected: As the manifest has it.
        found: As it was measured now.
    """
    told = [
        *_of_interpreters(expected.interpreter, found.interpreter),
        *_of_distributions(expected.distributions, found.distributions),
        *_of_files("{} beside the distributions", expected.extra, found.extra),
    ]
    for root in sorted({*expected.sources, *found.sources}):
        told += _of_files(
            "source file " + root.rstrip("/") + "/{}", expected.sources.get(root, {}), found.sources.get(root, {})
        )
    told += _of_files("configuration {}", expected.configuration, found.configuration)
    told += _of_files("environment variable {}", expected.environment, found.environment)
    if expected.image is not None and expected.image != found.image:
        told.append(f"the container image is {found.image or 'not known'} instead of {expected.image}")
    return told


def deviations(measurement: Measurement) -> list[str]:
    """How installed distributions differ from what was published, a sentence each."""
    told = []
    for name, each in measurement.distributions.items():
        told += [f"{name} {each.version}: {file} is not as its RECORD says" for file in each.changed]
        told += [f"{name} {each.version}: {file} is missing" for file in each.missing]
    return told


def _of_interpreters(expected: Interpreter, found: Interpreter) -> Iterator[str]:
    for name in ("implementation", "version", "executable", "library"):
        was, now = getattr(expected, name), getattr(found, name)
        if was != now:
            yield f"the interpreter's {name} is {_short(now)} instead of {_short(was)}"
    for name in sorted({*expected.flags, *found.flags}):
        if expected.flags.get(name) != found.flags.get(name):
            yield f"the interpreter's flag {name} is {found.flags.get(name)} instead of {expected.flags.get(name)}"
    yield from _of_files("{} of the standard library", expected.standard, found.standard)


def _of_distributions(expected: Mapping[str, Distribution], found: Mapping[str, Distribution]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        was, now = expected.get(name), found.get(name)
        if now is None or was is None:
            yield f"distribution {name} is {'missing' if now is None else 'not in the manifest'}"
        elif was.version != now.version:
            yield f"distribution {name} is {now.version} instead of {was.version}"
        elif was != now:
            files = sorted({*now.changed} - {*was.changed})
            gone = sorted({*now.missing} - {*was.missing})
            yield from (f"distribution {name}: {file} was changed" for file in files)
            yield from (f"distribution {name}: {file} is missing" for file in gone)
            if not files and not gone:
                yield f"distribution {name} {now.version} has other files than in the manifest"


def _of_files(what: str, expected: Mapping[str, str | None], found: Mapping[str, str | None]) -> Iterator[str]:
    for name in sorted({*expected, *found}):
        if name not in expected:
            yield f"{what.format(name)} is not in the manifest"
        elif found.get(name) is None and expected[name] is not None:
            yield f"{what.format(name)} is missing"
        elif expected[name] != found.get(name):
            yield f"{what.format(name)} was changed"


def _short(value: object) -> str:
    return str(value)[:16] if value is not None else "none"
