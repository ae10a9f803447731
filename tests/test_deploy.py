"""deploy/ and compose: rules and dashboard use metrics that exist, and containers have few privileges."""

import configparser
import json
import re
from typing import Any

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Api
from tests.servers import ROOT

ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
DASHBOARD = json.loads((ROOT / "deploy/grafana/dashboard.json").read_text())


def exported(api: Api) -> dict[str, set[str]]:
    """Return the labels of each sample of /metrics, after one of each event."""
    for code in ("redis_full", "disk_full"):
        api.http.application.extensions["queue"].counters.increment(("redis_errors", code))
    api.post("push", json={"message": "a"})
    api.post("push", json={"message": "b"})
    api.post("pop")
    id = api.post("reserve").json["id"]
    api.post("release", json={"id": id})
    api.post("ack", json={"id": api.post("reserve").json["id"]})
    families = text_string_to_metric_families(api.http.get("/metrics").text)
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}


def expressions() -> dict[str, list[str]]:
    rules = [rule["expr"] for group in ALERTS["groups"] for rule in group["rules"]]
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [one["query"]["query"] for one in DASHBOARD["templating"]["list"]]
    return {"alerts": rules, "dashboard": panels + variables}


def test_every_metric_and_label_in_them_is_exported(named_api: Api) -> None:
    known = exported(named_api)
    labels = {label for names in known.values() for label in names} | {"job", "instance"}
    for file, found in expressions().items():
        assert found, file
        for expression in found:
            names = re.findall(r"\bqueue_\w+", expression)
            assert names or "up{" in expression, expression
            assert set(names) <= known.keys(), expression
            used = re.findall(r"(\w+)=~?\"", expression) + re.findall(r"(?:by|on) \((\w+)\)", expression)
            assert set(used) <= labels, expression
            assert expression.count("(") == expression.count(")"), expression


def test_every_container_bounds_its_log() -> None:
    for name, service in yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"].items():
        assert service["logging"]["driver"] == "json-file", name
        assert service["logging"]["options"].keys() == {"max-size", "max-file"}, name


def test_every_alert_has_a_name_a_summary_and_a_severity() -> None:
    rules: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    assert all(rule["annotations"]["summary"] and rule["labels"]["severity"] in ("page", "ticket") for rule in rules)


def test_panels_have_unique_titles_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["title"] for panel in panels}) == len({panel["id"] for panel in panels}) == len(panels)
    places = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(places)) == len(places)
    assert max(x for x, _ in places) < 24


def test_prometheus_loads_the_alerts_and_scrapes_the_app() -> None:
    assert PROMETHEUS["rule_files"] == ["alerts.yml"]
    [job] = PROMETHEUS["scrape_configs"]
    assert job["job_name"] == "queue"
    [found] = job["dns_sd_configs"]
    assert (found["names"], found["port"]) == (["web"], 5000)


def test_app_and_valkey_have_no_rights_that_they_do_not_need() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    for name in ("web", "redis"):
        service = services[name]
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and "cap_add" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
    assert services["redis"]["user"] == "valkey"
    assert re.findall(r"^USER (.*)", (ROOT / "Dockerfile").read_text(), re.M)[-1] == "10001:10001"


def test_a_stop_by_the_systemd_unit_reaches_only_the_master_and_has_its_time() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string((ROOT / "deploy/seequeue.service").read_text())
    assert unit["Service"]["KillMode"] == "mixed"
    compose = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    assert unit["Service"]["TimeoutStopSec"] + "s" == compose["services"]["web"]["stop_grace_period"]
    assert unit["Service"]["Environment"] == "DATA_DIR=/var/lib/" + unit["Service"]["StateDirectory"]
