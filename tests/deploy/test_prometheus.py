"""Alerts and dashboard: names that are exported, rules that promtool accepts, and a real Prometheus that reads us.

promtool and prometheus are Debian's package `prometheus`; where they are missing, tests that need them are skipped.
"""

import http.client
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import ProcessCollector

from registry.config import load
from registry.metrics import catalogue
from tests.registry.metrics.serving import ask, pull, push, workers

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules.yaml"
DASHBOARD = ROOT / "deploy" / "grafana" / "moorage.json"
NAME = re.compile(r"\b(?:registry|process|moorage)_[a-z0-9_]+")


def exported() -> set[str]:
    """Every name that a sample can have on our page."""
    names = {catalogue.BUILD}
    for family in catalogue.FAMILIES.values():
        match family.kind:
            case "counter":
                names.add(f"{family.name}_total")
            case "gauge":
                names.add(family.name)
            case "histogram":
                names |= {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
    process = ProcessCollector(registry=None).collect()
    return names | {sample.name for metric in process for sample in metric.samples}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    variables = [each["query"]["query"] for each in dashboard["templating"]["list"] if each["type"] == "query"]
    return [*queries, *variables]


def test_alerts_are_about_what_is_exported() -> None:
    names = {name for rule in alerts() for name in NAME.findall(rule["expr"])}
    assert names
    assert names <= exported()


def test_the_dashboard_shows_what_is_exported() -> None:
    names = {name for query in dashboard_queries() for name in NAME.findall(query)}
    assert names <= exported()
    unseen = {family.name for family in catalogue.FAMILIES.values()} - {
        re.sub("_(total|bucket|sum|count)$", "", name) for name in names
    }
    assert unseen == set()


def test_labels_in_queries_are_those_of_the_metrics() -> None:
    """A selector on a label that a metric has not got selects nothing, silently."""
    families = {**catalogue.FAMILIES}
    known = {"job", "instance", "le"}
    for query in (*dashboard_queries(), *(rule["expr"] for rule in alerts())):
        for name, selector in re.findall(r"(registry_[a-z0-9_]+)\{([^}]*)\}", query):
            family = families.get(re.sub("_(total|bucket|sum|count)$", "", name)) or families.get(name)
            labels = set(re.findall(r"([a-z]+)(?:=~|!~|!=|=)\"", selector))
            allowed = {"version", "python"} if family is None else set(family.labels)
            assert labels <= known | allowed, query


def test_every_alert_has_its_chapter() -> None:
    chapters = re.findall(r"^### (Registry\w+)$", (ROOT / "docs" / "operations.md").read_text(), re.MULTILINE)
    assert sorted(chapters) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        assert rule["annotations"]["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"]


def test_every_alert_is_tested() -> None:
    tests = yaml.safe_load(RULES.with_name("rules.test.yaml").read_text())["tests"]
    raised = {name for test in tests for name in re.findall(r'alertname="(\w+)"', json.dumps(test).replace("\\", ""))}
    assert raised == {rule["alert"] for rule in alerts()}


def test_every_metric_is_documented() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = dict(re.findall(r"^\| `(registry_\w+)` \| ([a-z, ]*) ?\|", page, re.MULTILINE))
    expected = {
        f"{family.name}_total" if family.kind == "counter" else family.name: ", ".join(family.labels)
        for family in catalogue.FAMILIES.values()
    }
    assert {name: labels.strip() for name, labels in rows.items()} == {**expected, catalogue.BUILD: "version, python"}


def test_the_settings_that_the_scrape_file_names(tmp_path: Path) -> None:
    text = RULES.with_name("prometheus.yaml").read_text()
    variables = dict(re.findall(r"(REGISTRY_\w+)=(\S+)", text))
    loaded = load(None, variables)
    assert not loaded.warnings
    debug = loaded.config.http.debug
    assert debug.prometheus.enabled
    (target,) = yaml.safe_load(text)["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target.rpartition(":")[2] == debug.addr.rpartition(":")[2]


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (apt install prometheus)")
    return found


def promtool(*arguments: object, cwd: Path = RULES.parent) -> None:
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], check=False, capture_output=True, text=True, cwd=cwd
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("check", "rules", "rules.yaml"), ("check", "config", "prometheus.yaml"), ("test", "rules", "rules.test.yaml")],
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    promtool(*arguments)


@pytest.mark.slow
def test_promtool_understands_the_dashboard(tmp_path: Path) -> None:
    queries = [query for query in dashboard_queries() if not query.startswith("label_values")]
    rules = [{"record": "x", "expr": query.replace("$__rate_interval", "5m")} for query in queries]
    groups = [{"name": str(number), "rules": [rule]} for number, rule in enumerate(rules)]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": groups}))
    promtool("check", "rules", path)


class Prometheus:
    def __init__(self, port: int) -> None:
        self._port = port

    def get(self, path: str, **query: str) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
            return json.load(connection.getresponse())["data"]
        finally:
            connection.close()

    def query(self, text: str) -> list[float]:
        return [float(each["value"][1]) for each in self.get("query", query=text)["result"]]

    def until(self, what: Callable[[], object], seconds: float = 60.0) -> None:
        """Prometheus cannot be told to scrape: what it has read shows some time later."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if what():
                    return
            except (OSError, ValueError):
                pass  # it has not begun to answer
            assert time.monotonic() < deadline, what
            time.sleep(0.1)


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """Our own configuration, for another target and without the patience of fifteen seconds."""
    binary = program("prometheus")
    config = yaml.safe_load(RULES.with_name("prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "200ms"}
    config["rule_files"] = [str(RULES)]
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    arguments = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    log = (folder / "prometheus.log").open("wb")
    process = subprocess.Popen(
        [binary, *arguments, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log, cwd=folder
    )
    try:
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.slow
def test_prometheus_reads_a_registry_of_two_workers(tmp_path: Path) -> None:
    program("prometheus")
    with workers(2, tmp_path) as (url, debug, _), prometheus(tmp_path, debug.removeprefix("http://")) as reader:
        reader.until(lambda: reader.query("up") == [1.0])
        for number in range(4):
            push(url, f"team/app{number}")
            pull(url, f"team/app{number}")
        assert ask(url, "GET", "/v2/team/app0/manifests/none")[0] == 404
        pulls = 'sum(registry_http_requests_total{handler="manifest", method="get", code="200"})'
        reader.until(lambda: reader.query(pulls) == [4.0])
        missing = 'sum(registry_http_requests_total{handler="manifest", method="get", code="404"})'
        reader.until(lambda: reader.query(missing) == [1.0])
        assert reader.query('sum(registry_storage_actions_total{outcome="failed"})') == [0.0]
        assert reader.query("registry_workers") == [2.0]
        assert len(reader.query('process_resident_memory_bytes{job="registry"}')) == 2

        targets = reader.get("targets")
        assert [each["health"] for each in targets["activeTargets"]] == ["up"]
        assert not targets["droppedTargets"]

        def rules() -> list[dict[str, Any]]:
            return [rule for group in reader.get("rules")["groups"] for rule in group["rules"]]

        reader.until(lambda: all(rule["health"] == "ok" for rule in rules()))
        assert {rule["name"] for rule in rules()} == {rule["alert"] for rule in alerts()}
        assert {rule["name"] for rule in rules() if rule["state"] == "firing"} == set()
        for query in dashboard_queries():
            if not query.startswith("label_values"):
                filled = query.replace("$__rate_interval", "1m").replace("$job", "registry").replace("$instance", ".*")
                assert reader.get("query", query=filled)["resultType"] == "vector"
