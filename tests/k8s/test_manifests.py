"""The manifests as Kustomize renders them: they fit Kubernetes' schemas, and hold what an operator relies on."""

import re
from typing import Any

import kubernetes_validate
import msgspec
import pytest
from ops_tools import K8S

from dsp.base.config import Config, load_config

VERSION = "1.33"
OVERLAYS = ("base", "overlays/dev", "overlays/prod")
# Kinds of operators, whose schemas Kubernetes does not know: what must be there, and nothing that isn't known here.
OF_OPERATORS: dict[str, set[str]] = {
    "ServiceMonitor": {"selector", "endpoints"},
    "PrometheusRule": {"groups"},
    "Cluster": {"instances", "minSyncReplicas", "maxSyncReplicas", "bootstrap", "storage", "walStorage", "resources",
                "affinity", "monitoring"},
    "AerospikeCluster": {"size", "image", "storage", "podSpec", "aerospikeConfig"},
}  # fmt: skip
Manifests = dict[str, list[dict[str, Any]]]


def pods(manifests: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """(name, pod specification) of every workload."""
    return [
        (m["metadata"]["name"], m["spec"]["template"]["spec"])
        for m in manifests
        if m["kind"] in ("Deployment", "StatefulSet")
    ]


def named(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    return next(m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_fits_its_schema(rendered: Manifests, overlay: str) -> None:
    for manifest in rendered[overlay]:
        if manifest["kind"] in OF_OPERATORS:
            assert set(manifest["spec"]) <= OF_OPERATORS[manifest["kind"]]
        else:
            kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_a_wrong_field_does_not_fit(rendered: Manifests) -> None:
    wrong = {**named(rendered["base"], "Deployment", "bidder")}
    wrong["spec"] = {**wrong["spec"], "replica": 3}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_locked_down_and_probed(rendered: Manifests, overlay: str) -> None:
    for name, pod in pods(rendered[overlay]):
        security = pod["securityContext"]
        assert security["runAsNonRoot"], name
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert re.fullmatch(r"dsp:\d+\.\d+\.\d+", container["image"])
            assert set(container["resources"]) == {"requests", "limits"}
            assert {"startupProbe", "livenessProbe"} <= set(container)
            assert "ports" not in container or "readinessProbe" in container
        mounted = {volume["name"] for volume in pod["volumes"]} | {
            claim["metadata"]["name"]
            for manifest in rendered[overlay]
            if manifest["kind"] == "StatefulSet" and manifest["metadata"]["name"] == name
            for claim in manifest["spec"]["volumeClaimTemplates"]
        }
        used = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        assert used == mounted


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_settings_are_ones_that_the_program_takes(rendered: Manifests, overlay: str) -> None:
    settings = next(m for m in rendered[overlay] if m["metadata"]["name"].startswith("dsp-settings"))
    file = K8S / overlay / "settings.yaml"
    assert settings["data"]["settings.yaml"] == file.read_text()
    config = load_config(file)
    assert config != Config()
    pod = dict(pods(rendered[overlay]))["bidder"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {
        "http": config.bidder.http_port,
        "grpc": config.bidder.grpc_port,
        "metrics": config.bidder.metrics_port,
    }
    assert any(m["kind"] == "Service" and m["metadata"]["name"] == config.ledger.worker_host for m in rendered[overlay])
    console = next(c for c in dict(pods(rendered[overlay]))["publisher"]["containers"] if c["name"] == "console")
    ports = {port["name"]: port["containerPort"] for port in console["ports"]}
    assert ports == {"console": config.console.port, "metrics": config.console.metrics_port}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain_before_it_is_killed(rendered: Manifests, overlay: str) -> None:
    config = load_config(K8S / overlay / "settings.yaml")
    pod = dict(pods(rendered[overlay]))["bidder"]
    wait_s = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert wait_s >= 5  # load balancers learn of it first
    assert pod["terminationGracePeriodSeconds"] > wait_s + config.bidder.drain_s + 5


@pytest.mark.parametrize(
    ("overlay", "settings", "name"),
    [*((overlay, overlay, "bidder") for overlay in OVERLAYS), ("overlays/prod", "components/rta", "rta")],
)
def test_a_pod_deletes_decision_logs_before_they_fill_it(
    rendered: Manifests, overlay: str, settings: str, name: str
) -> None:
    config = load_config(K8S / settings / "settings.yaml")
    volumes = {volume["name"]: volume for volume in dict(pods(rendered[overlay]))[name]["volumes"]}
    number, unit = re.fullmatch(r"(\d+)([GM]i)", volumes["data"]["emptyDir"]["sizeLimit"]).groups()  # type: ignore[union-attr]
    room = int(number) * {"Gi": 1 << 30, "Mi": 1 << 20}[unit]
    assert 0 < config.retention.decisions_gb * 1e9 <= 0.8 * room  # the rest is for what is being written


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_a_manifest(rendered: Manifests, overlay: str) -> None:
    assert not [m for m in rendered[overlay] if m["kind"] == "Secret"]
    text = msgspec.json.encode(rendered[overlay]).decode()
    assert not re.search(r"postgresql://[^/@\"]+:[^@\"]+@", text)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_is_selected_exists(rendered: Manifests, overlay: str) -> None:
    manifests = rendered[overlay]
    labels = [
        m["spec"]["template"]["metadata"]["labels"] for m in manifests if m["kind"] in ("Deployment", "StatefulSet")
    ]
    services = [m["metadata"]["labels"] for m in manifests if m["kind"] == "Service"]

    def some(wanted: dict[str, str], of: list[dict[str, str]]) -> bool:
        return any(wanted.items() <= one.items() for one in of)

    for m in manifests:
        if m["kind"] == "Service":
            assert some(m["spec"]["selector"], labels)
        elif m["kind"] == "PodDisruptionBudget":
            assert some(m["spec"]["selector"]["matchLabels"], labels)
        elif m["kind"] == "ServiceMonitor":
            assert some(m["spec"]["selector"]["matchLabels"], services)
        elif m["kind"] == "HorizontalPodAutoscaler":
            assert named(manifests, m["spec"]["scaleTargetRef"]["kind"], m["spec"]["scaleTargetRef"]["name"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_money_has_one_writer_and_nothing_is_reachable_unless_said(rendered: Manifests, overlay: str) -> None:
    assert named(rendered[overlay], "StatefulSet", "ledger")["spec"]["replicas"] == 1
    deny = named(rendered[overlay], "NetworkPolicy", "deny-all")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_the_image_is_pinned_multi_stage_and_not_root() -> None:
    text = (K8S / "Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=python:\d+\.\d+\.\d+-slim-\w+$", text, re.MULTILINE)
    stages = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert stages == ["${PYTHON}", "${PYTHON}"]
    last = text[text.rindex("FROM ") :]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "pip install" not in last
    assert "--require-hashes" in text


def test_every_role_that_serves_has_its_service_budget_and_policy(rendered: Manifests) -> None:
    manifests = rendered["overlays/prod"]

    def of(kind: str) -> list[dict[str, Any]]:
        return [m["spec"] for m in manifests if m["kind"] == kind]

    workloads = [m for m in manifests if m["kind"] in ("Deployment", "StatefulSet")]
    assert {m["metadata"]["name"] for m in workloads} == {"bidder", "rta", "artf", "ledger", "publisher"}
    for workload in workloads:
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert any(spec["selector"].items() <= labels.items() for spec in of("Service"))
        assert any(spec["selector"]["matchLabels"] == labels for spec in of("PodDisruptionBudget"))
        for container in workload["spec"]["template"]["spec"]["containers"]:
            for port in container.get("ports", ()):
                assert any(
                    allowed["port"] == port["containerPort"]
                    for spec in of("NetworkPolicy")
                    if spec["podSelector"].get("matchLabels") == labels
                    for rule in spec.get("ingress", ())
                    for allowed in rule["ports"]
                ), f"nobody may reach {container['name']} at {port}"


def test_bidders_scale_on_queue_delay(rendered: Manifests) -> None:
    metrics = named(rendered["base"], "HorizontalPodAutoscaler", "bidder")["spec"]["metrics"]
    assert "dsp_queue_delay_seconds_mean" in [metric["pods"]["metric"]["name"] for metric in metrics]


@pytest.mark.parametrize("role", ["rta", "artf"])
def test_a_components_settings_are_ones_that_the_program_takes_and_go_to_its_ports(
    rendered: Manifests, role: str
) -> None:
    config = load_config(K8S / "components" / role / "settings.yaml")
    prod = load_config(K8S / "overlays" / "prod" / "settings.yaml")
    assert config.audience.aerospike_hosts == prod.audience.aerospike_hosts
    assert (config.bidder.http_workers, config.bidder.grpc_workers) == (0, 0)
    pod = dict(pods(rendered["overlays/prod"]))[role]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {role: getattr(config, role).port, "metrics": config.bidder.metrics_port}
    cores = int(pod["containers"][0]["resources"]["limits"]["cpu"])
    assert cores == getattr(config, role).workers


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_metrics_of_bidder_and_console_are_for_prometheus_alone(rendered: Manifests, overlay: str) -> None:
    for policy, port in (("bidder", 8082), ("console", 8071)):
        rules = named(rendered[overlay], "NetworkPolicy", policy)["spec"]["ingress"]
        sources = [rule["from"] for rule in rules if port in [allowed["port"] for allowed in rule["ports"]]]
        assert sources == [[{"namespaceSelector": {"matchLabels": {"dsp/monitoring": "true"}}}]], policy


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_role_with_metrics_is_scraped_at_a_port_that_its_service_names(rendered: Manifests, overlay: str) -> None:
    manifests = rendered[overlay]
    monitors = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "ServiceMonitor"}
    assert set(monitors) >= {"bidder", "ledger", "console"}
    for name, monitor in monitors.items():
        ports = {port["name"] for port in named(manifests, "Service", name)["spec"]["ports"]}
        assert {endpoint["port"] for endpoint in monitor["endpoints"]} <= ports
