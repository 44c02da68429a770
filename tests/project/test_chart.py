"""The Helm chart, rendered by Helm's own engine, and what comes out judged by Kubernetes' own schemas."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmValuesError, lint
from yamllint import linter
from yamllint.config import YamlLintConfig

import proxy
from proxy.config.loading import load_config
from proxy.settings import Settings

CHART = Path(proxy.__file__).parents[1] / "deploy" / "helm" / "llmgateway"
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
EVERYTHING: dict[str, Any] = {
    "autoscaling": {"enabled": True, "inFlight": 200},
    "adminPort": 4001,
    "metricsPort": 4002,
    "networkPolicy": {"enabled": True, "from": [{"namespaceSelector": {"matchLabels": {"team": "search"}}}]},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "tokenKey": "METRICS_KEY"},
    "image": {"pullSecrets": [{"name": "registry"}], "tag": "1.2.3"},
    "spool": {"storageClass": "fast", "size": "10Gi"},
    "podLabels": {"team": "platform"},
    "podAnnotations": {"example.com/note": "any"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "gateways", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "important",
    "filesSecretName": "provider-keys",
}
NOTHING: dict[str, Any] = {"autoscaling": {"enabled": False}, "podDisruptionBudget": {"enabled": False}}
VALUES = pytest.mark.parametrize("values", [{}, EVERYTHING, NOTHING], ids=["defaults", "everything", "nothing"])
SECRETS = {
    "DATABASE_URL": "postgresql://llmgateway@postgres/llmgateway",
    "LLMGATEWAY_MASTER_KEY": "a-master-key",
    "LLMGATEWAY_VALKEY_URL": "valkey://valkey:6379",
    "OPENROUTER_API_KEY": "sk-or-any",
}
_LISTENS_NOWHERE_ELSE_SECONDS = 20  # what booking may take at the end, beyond delay and grace


def rendered(values: Mapping[str, Any], release: str = "llmgateway") -> dict[str, str]:
    with Chart.load(CHART) as chart:
        texts = chart.render(dict(values), name=release, namespace="ai")
    return {name: text for name, text in texts.items() if name.endswith(".yaml")}


def objects(
    values: Mapping[str, Any], kind: str | None = None, release: str = "llmgateway"
) -> Iterator[dict[str, Any]]:
    for text in rendered(values, release).values():
        for each in yaml.safe_load_all(text):
            if each is not None and kind in (None, each["kind"]):
                yield each


def pods(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of the gateways, and of the migrations."""
    (gateways,), (migrations,) = objects(values, "StatefulSet"), objects(values, "Job")
    return [gateways["spec"]["template"], migrations["spec"]["template"]]


def environment(values: Mapping[str, Any]) -> dict[str, str]:
    """What a gateway's container gets."""
    container = pods(values)[0]["spec"]["containers"][0]
    config_map, secret = (source for source in container["envFrom"])
    given = next(each for each in objects(values, "ConfigMap") if each["metadata"]["name"].endswith("-settings"))
    assert config_map["configMapRef"]["name"] == given["metadata"]["name"]
    assert secret["secretRef"]["name"] == "llmgateway"
    return {**given["data"], **SECRETS, **{each["name"]: each["value"] for each in container["env"]}}


@VALUES
def test_helm_finds_nothing_to_complain_of(values: dict[str, Any]) -> None:
    report = lint(CHART, values, strict=True, kube_version=f"v{NEWEST}")
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@VALUES
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_every_object_is_what_kubernetes_takes(values: dict[str, Any], version: str) -> None:
    """Those of Prometheus' operator are not Kubernetes' own."""
    for each in objects(values):
        if each["kind"] != "ServiceMonitor":
            kubernetes_validate.validate(each, version, strict=True)


def test_no_key_is_written_twice() -> None:
    """YAML's readers would take the last one without a word."""
    rules = YamlLintConfig(
        "rules: {key-duplicates: enable, indentation: {spaces: consistent, indent-sequences: whatever}}"
    )
    for name, text in rendered(EVERYTHING).items():
        assert list(linter.run(text, rules)) == [], name


@VALUES
def test_what_the_chart_sets_is_what_the_gateway_reads(values: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    given = environment(values)
    assert {name for name in given if name.lower() not in Settings.model_fields} == set()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = Settings()  # type: ignore[call-arg]
    gateways = pods(values)[0]["spec"]
    ending = settings.shutdown_delay_seconds + settings.shutdown_grace_seconds + _LISTENS_NOWHERE_ELSE_SECONDS
    assert gateways["terminationGracePeriodSeconds"] >= ending
    ports = {port["name"]: port["containerPort"] for port in gateways["containers"][0]["ports"]}
    assert ports["http"] == settings.llmgateway_port
    assert ports.get("admin") == settings.llmgateway_admin_port
    assert ports.get("metrics") == settings.llmgateway_metrics_port
    (claim,) = next(objects(values, "StatefulSet"))["spec"]["volumeClaimTemplates"]
    size = claim["spec"]["resources"]["requests"]["storage"]
    assert int(size.removesuffix("Gi")) * 2**30 >= 1.5 * settings.ledger_spool_max_bytes


def test_migrations_need_nothing_but_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    container = pods({})[1]["spec"]["containers"][0]
    host, url = container["env"]
    monkeypatch.setenv(host["name"], host["value"])
    monkeypatch.setenv("DATABASE_URL", SECRETS["DATABASE_URL"])
    assert url["valueFrom"]["secretKeyRef"] == {"name": "llmgateway", "key": "DATABASE_URL"}
    assert Settings().database_url == SECRETS["DATABASE_URL"]  # type: ignore[call-arg]


def test_a_secret_of_files_is_mounted_for_gateways_if_there_is_one() -> None:
    for values, is_there in ((EVERYTHING, True), (NOTHING, False)):
        gateways = pods(values)[0]["spec"]
        mounted = {each["name"]: each["mountPath"] for each in gateways["containers"][0]["volumeMounts"]}
        volumes = {each["name"]: each.get("secret") for each in gateways["volumes"]}
        assert mounted.get("secrets") == ("/secrets" if is_there else None)
        assert volumes.get("secrets") == ({"secretName": "provider-keys"} if is_there else None)


def test_the_configuration_of_the_defaults_is_valid(tmp_path: Path) -> None:
    (data,) = (each["data"] for each in objects({}, "ConfigMap") if "gateway.yaml" in each["data"])
    path = tmp_path / "gateway.yaml"
    path.write_text(data["gateway.yaml"])
    assert load_config(path, {**os.environ, **SECRETS}, {}).config.models


@VALUES
def test_pods_may_do_nothing_that_they_need_not(values: dict[str, Any]) -> None:
    for pod in pods(values):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert "privileged" not in security
            assert container["resources"]["limits"]["memory"]


def test_the_user_is_the_image_s() -> None:
    user = f"USER {pods({})[0]['spec']['securityContext']['runAsUser']}:"
    assert user in (CHART.parents[2] / "Dockerfile").read_text()


def test_kubernetes_sets_no_variable_that_the_gateway_takes_for_a_setting() -> None:
    """For a Service `llmgateway` it would set LLMGATEWAY_PORT=tcp://…, in every pod beside it."""
    assert all(pod["spec"]["enableServiceLinks"] is False for pod in pods({}))


@VALUES
def test_services_reach_gateways_and_nothing_else(values: dict[str, Any]) -> None:
    gateways, migrations = (pod["metadata"]["labels"] for pod in pods(values))
    ports = {port["name"] for port in pods(values)[0]["spec"]["containers"][0]["ports"]}
    selectors = [each["spec"]["selector"] for each in objects(values, "Service")]
    selectors += [each["spec"]["selector"]["matchLabels"] for each in objects(values, "PodDisruptionBudget")]
    for selector in selectors:
        assert selector.items() <= gateways.items()
        assert not selector.items() <= migrations.items()
    for service in objects(values, "Service"):
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_the_autoscaler_alone_says_how_many_there_are() -> None:
    (scaled,), (autoscaler,) = objects({}, "StatefulSet"), objects({}, "HorizontalPodAutoscaler")
    assert "replicas" not in scaled["spec"]
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == scaled["metadata"]["name"]
    assert list(objects(NOTHING, "HorizontalPodAutoscaler")) == []
    assert next(objects(NOTHING, "StatefulSet"))["spec"]["replicas"] == 3


@pytest.mark.parametrize(("port", "name"), [(4002, "metrics"), (None, "http")])
def test_prometheus_asks_each_pod_once(port: int | None, name: str) -> None:
    values = EVERYTHING | {"metricsPort": port}
    (monitor,) = objects(values, "ServiceMonitor")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    found = [each for each in objects(values, "Service") if wanted <= each["metadata"]["labels"].items()]
    assert [service["spec"]["clusterIP"] for service in found] == ["None"]
    assert monitor["spec"]["endpoints"][0]["port"] == name
    assert name in {each["name"] for each in found[0]["spec"]["ports"]}
    assert monitor["spec"]["endpoints"][0]["authorization"]["credentials"]["key"] == "METRICS_KEY"


@pytest.mark.parametrize("release", ["llmgateway", "search"])
def test_the_job_is_the_one_that_the_alerts_ask_for(release: str) -> None:
    """By itself the operator takes the Service's name, and an alert of another job never fires."""
    (monitor,) = objects(EVERYTHING, "ServiceMonitor", release)
    (service,) = (each for each in objects(EVERYTHING, "Service", release) if each["spec"].get("clusterIP") == "None")
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    alerts = (CHART.parents[1] / "prometheus" / "alerts.yaml").read_text()
    assert set(re.findall(r'job="([^"]*)"', alerts)) == {job}


def test_clients_do_not_reach_an_admin_api_that_has_its_own_port() -> None:
    ports = {each["metadata"]["name"]: each["spec"]["ports"] for each in objects(EVERYTHING, "Service")}
    assert [port["targetPort"] for port in ports["llmgateway"]] == ["http"]
    assert [port["targetPort"] for port in ports["llmgateway-admin"]] == ["admin"]


@pytest.mark.parametrize(
    "values",
    [
        {"replica": 3},
        {"secretName": ""},
        {"settings": {"LLMGATEWAY_MASTER_KEY": "sk-in-a-config-map"}},
        {"settings": {"LLMGATEWAY_DATA_DIR": "/tmp"}},  # noqa: S108
        {"settings": {"SHUTDOWN_GRACE_SECONDS": "long"}},
        {"adminPort": 4000},
    ],
    ids=str,
)
def test_wrong_values_are_refused(values: dict[str, Any]) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmValuesError):
        chart.validate_schema(chart.merge_values(values))


def test_the_chart_ships_this_version() -> None:
    with Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == proxy.__version__
        chart.validate_schema(chart.merge_values({}))
