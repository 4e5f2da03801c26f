"""Measures this installation and signs what it is: ``python -S prepare.py MANIFEST KEYS SECRET SOURCE CONFIG``."""

import sys
from pathlib import Path

from exequatur.integrity.files import Reader
from exequatur.integrity.keys import make_manifest_key
from exequatur.integrity.manifest import sign_manifest
from exequatur.integrity.measure import Plan, Sites, measure


def main(manifest: str, keys: str, secret: str, library: str, source: str, config: str) -> None:
    key = make_manifest_key(Path(secret), Path(keys), "tests")
    plan = Plan((Path(library), Path(source)), (Path(config),), ("SHOP_MODE",), build="b1")
    Path(manifest).write_text(sign_manifest(measure(plan, Reader(), Sites.here()).measurement, "worker", key))


if __name__ == "__main__":
    main(*sys.argv[1:])
