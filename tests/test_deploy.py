"""deploy/ and compose: metrics and settings in them exist, their parts fit together, and containers have few rights."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from broker.keys import queue_keys
from settings import SETTINGS, Settings
from tests.conftest import Api
from tests.servers import ROOT

ALERTS = yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())
PROMETHEUS = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
BESIDE = yaml.safe_load((ROOT / "deploy/beside.yaml").read_text())["services"]["seequeue"]
KUBERNETES = {one["kind"]: one for one in yaml.safe_load_all((ROOT / "deploy/kubernetes.yaml").read_text())}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
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


UNIT_TEXT = (ROOT / "deploy/seequeue.service").read_text()


def unit() -> list[tuple[str, str]]:
    """Return the lines of the systemd unit, some of which have the same name."""
    return re.findall(r"^(\w+)=(.*)$", UNIT_TEXT, re.M)


def test_a_stop_by_the_systemd_unit_reaches_only_the_master_and_has_its_time() -> None:
    lines = unit()
    assert ("KillMode", "mixed") in lines
    assert ("TimeoutStopSec", COMPOSE["web"]["stop_grace_period"].rstrip("s")) in lines
    assert ("Environment", "DATA_DIR=/var/lib/" + dict(lines)["StateDirectory"]) in lines


def test_the_systemd_unit_hands_its_token_over() -> None:
    name, _, path = dict(unit())["LoadCredential"].partition(":")
    assert ("Environment", f"API_TOKEN_FILE=%d/{name}") in unit()
    assert f"Put a token in {path}" in UNIT_TEXT


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "seequeue.service"
    file.write_text(UNIT_TEXT.replace("/opt/seequeue/bin/seequeue", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# --- Kubernetes, KEDA, and the service beside another app


def test_kubernetes_probes_the_process_for_life_and_redis_for_readiness() -> None:
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {name: one["path"] for name, one in probes.items()} == {
        "startup": "/livez",
        "liveness": "/livez",
        "readiness": "/healthz",
    }
    assert {one["port"] for one in probes.values()} == {CONTAINER["ports"][0]["name"]}


def test_the_pod_has_no_rights_that_it_does_not_need_and_time_to_stop() -> None:
    assert POD["securityContext"]["runAsNonRoot"] and not POD["automountServiceAccountToken"]
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    [_, pause] = CONTAINER["lifecycle"]["preStop"]["exec"]["command"]
    grace = int(COMPOSE["web"]["stop_grace_period"].rstrip("s"))
    assert POD["terminationGracePeriodSeconds"] >= grace + int(pause)


def test_only_one_pod_uses_the_data_of_the_embedded_valkey() -> None:
    deployment = KUBERNETES["Deployment"]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})


def test_the_parts_of_the_kubernetes_manifest_fit_together() -> None:
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert KUBERNETES["Service"]["spec"]["ports"][0]["targetPort"] == CONTAINER["ports"][0]["name"]
    volumes = {one["name"]: one for one in POD["volumes"]}
    mounts = {one["name"]: one["mountPath"] for one in CONTAINER["volumeMounts"]}
    assert mounts.keys() == volumes.keys()
    claim = KUBERNETES["PersistentVolumeClaim"]["metadata"]["name"]
    assert volumes["data"]["persistentVolumeClaim"]["claimName"] == claim
    env = {one["name"]: one["value"] for one in CONTAINER["env"]}
    assert env["DATA_DIR"].startswith(mounts["data"]) and env["API_TOKEN_FILE"] == mounts["token"] + "/token"


def test_every_variable_in_a_manifest_is_a_setting() -> None:
    names = {one["name"] for one in CONTAINER["env"]} | {*BESIDE["environment"]} | {*COMPOSE["web"]["environment"]}
    names |= {value.partition("=")[0] for name, value in unit() if name == "Environment"}
    assert len(names) > 8 and names <= {row.name for row in SETTINGS}


def test_the_service_beside_another_app_is_as_closed_as_ours_and_needs_a_token() -> None:
    for key in ("read_only", "tmpfs", "cap_drop", "security_opt", "stop_grace_period", "logging", "restart"):
        assert BESIDE[key] == COMPOSE["web"][key], key
    assert BESIDE["environment"]["API_TOKEN"].startswith("${API_TOKEN:?")
    rule = BESIDE["labels"]["traefik.http.routers.seequeue.rule"]
    assert re.findall("`(.*)`", rule)[0] in BESIDE["environment"]["TRUSTED_HOSTS"]


def test_keda_looks_at_the_list_of_a_queue() -> None:
    [trigger] = yaml.safe_load((ROOT / "deploy/keda.yaml").read_text())["spec"]["triggers"]
    assert trigger["metadata"]["listName"] == queue_keys("jobs", Settings().queue_prefix)[0]
