"""What docs/operations.md says about monitoring: its YAML loads, its PromQL parses, and it names what there is."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from exequatur.console.condition import health_of
from exequatur.console.metrics import exposed
from exequatur.console.probes import Service
from exequatur.console.problems import Authority
from exequatur.console.workers import Reports
from tests.console.reporting import report, traffic

TEXT = (Path(__file__).parents[2] / "docs" / "operations.md").read_text().partition("\n## Monitor\n")[2]
MONITOR = TEXT.partition("\n## ")[0]
BLOCKS = {
    name: yaml.safe_load(body) for name, body in re.findall(r"```yaml\n# (\S+)\n(.*?)```", MONITOR, flags=re.DOTALL)
}
RULES = [rule for group in BLOCKS["alerts.yml"]["groups"] for rule in group["rules"]]
TYPES = {
    "exequatur_console_evidence_rows": "counter",
    "exequatur_console_evidence_sources": "gauge",
    "exequatur_console_feed_version": "gauge",
    "exequatur_console_health": "gauge",
    "exequatur_console_problems": "gauge",
    "exequatur_console_service_up": "gauge",
    "exequatur_console_workers": "gauge",
    "exequatur_worker_credential_expires_timestamp_seconds": "gauge",
    "exequatur_worker_feed_age_seconds": "gauge",
    "exequatur_worker_feed_version": "gauge",
    "exequatur_worker_gate_latency_seconds": "histogram",
    "exequatur_worker_info": "gauge",
    "exequatur_worker_outcomes": "counter",
    "exequatur_worker_ready": "gauge",
    "exequatur_worker_release_expires_timestamp_seconds": "gauge",
    "exequatur_worker_report_timestamp_seconds": "gauge",
}
"""Dashboards and alerts of others stand on these names and types."""


@pytest.fixture(scope="module")
def families() -> list[Any]:
    """The metrics where something fails and something works."""
    now = time.time()
    failing = report(1, unavailable="the evidence journal cannot be written", traffic=traffic(now, 0.1, allowed=1))
    calm = Authority(None, None, None, 0, "", 15.0)
    service = Service("store", "here", "down", "gone", "Start it.", now, now)
    reports = Reports((failing, report(2, task_queues=("a",), expires=now)))
    plain = health_of(reports, (service,), calm, {}, (), now).plain()
    return list(text_string_to_metric_families(exposed(plain, "", workers=True)[0].decode()))


@pytest.fixture(scope="module")
def labels(families: list[Any]) -> dict[str, dict[str, set[str]]]:
    """Values of each label of each series."""
    found: dict[str, dict[str, set[str]]] = {}
    for sample in (sample for family in families for sample in family.samples):
        for label, value in sample.labels.items():
            found.setdefault(sample.name, {}).setdefault(label, set()).add(value)
        found.setdefault(sample.name, {})
    return found


def test_names_and_types_of_metrics_stay_as_they_are(families: list[Any]) -> None:
    assert {each.name: each.type for each in families} == TYPES


def test_the_scrape_configuration_is_one() -> None:
    [job] = BLOCKS["prometheus.yml"]["scrape_configs"]
    assert job["static_configs"][0]["targets"]
    assert job["authorization"]["credentials_file"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_asks_for_what_there_is(rule: dict[str, Any], labels: dict[str, dict[str, set[str]]]) -> None:
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"[A-Z][A-Za-z]+", rule["alert"])
    assert re.fullmatch(r"\d+[smhd]", rule["for"])
    asked: list[Any] = []

    def visit(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            asked.append(node)

    promql_parser.walk(promql_parser.parse(rule["expr"]), visit)
    assert asked
    for each in asked:
        assert each.name in labels
        for matcher in each.matchers.matchers:
            assert matcher.value in labels[each.name][matcher.name]


def test_the_table_names_metrics_and_labels_that_there_are(labels: dict[str, dict[str, set[str]]]) -> None:
    told = re.findall(r"`(exequatur_(?:console|worker)_\w+)(?:\{([\w,]+)\})?`", MONITOR)
    assert len(told) > 5
    for name, names in told:
        series = name if name in labels else f"{name}_bucket"
        assert series in labels
        assert set(filter(None, names.split(","))) <= set(labels[series])
