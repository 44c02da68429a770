"""Variables that were meant for the gateway: which of them are told, and that their values are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.bootstrap.unread_variables import Unread, unread_variables
from proxy.settings import Settings
from tests.cli.test_check_config import run
from tests.config.documents import SMALL

SETTINGS = [name.upper() for name in Settings.model_fields]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("LLMGATEWAY_PROT", "LLMGATEWAY_PORT"),
        ("llmgateway_prot", "LLMGATEWAY_PORT"),
        ("LLMGATEWAY_MAX_IN_FLIGHT", "MAX_IN_FLIGHT"),
        ("LLMGATEWAY_FOO", None),
        ("LLM_GATEWAY_PORT", "LLMGATEWAY_PORT"),
        ("OVERLOAD_LAG_SECOND", "OVERLOAD_LAG_SECONDS"),
        ("OIDC_ROLFS", "OIDC_ROLES"),
    ],
)
def test_what_was_meant_for_the_gateway_is_told(name: str, meant: str | None) -> None:
    assert unread_variables(["PATH", name]) == [Unread(name, meant)]


def test_a_letter_too_few_is_noticed_in_every_setting() -> None:
    meant = {name[:at] + name[at + 1 :]: name for name in SETTINGS for at in range(len(name))}
    assert {each.name: each.meant for each in unread_variables(meant)} == meant


def test_settings_and_what_is_others_are_not_told() -> None:
    others = ["HOST", "LOG_LEVEL", "MAX_CONNECTIONS", "PORT", "POSTGRES_URL", "REQUEST_TIMEOUT", "RETRY_MAX"]
    libraries = ["GUNICORN_CMD_ARGS", "OTEL_EXPORTER_OTLP_ENDPOINT", "PROMETHEUS_MULTIPROC_DIR", "SSL_CERT_FILE"]
    assert unread_variables([*SETTINGS, *(name.lower() for name in SETTINGS), *others, *libraries]) == []


def test_what_kubernetes_sets_for_a_service_is_not_told() -> None:
    links = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_4000_TCP", "PORT_4000_TCP_ADDR"]
    assert unread_variables(f"LLMGATEWAY_ADMIN_{each}" for each in links) == []
    assert unread_variables(["LLMGATEWAY_SERVICE_PORT"]) != []


def test_what_the_configuration_file_refers_to_is_not_told(tmp_path: Path) -> None:
    file, names = tmp_path / "gateway.yaml", ["LLMGATEWAY_LOCAL_KEY", "OPENROUTER_API_KEY_2"]
    assert [each.name for each in unread_variables(names, file)] == names
    file.write_text("${LLMGATEWAY_LOCAL_KEY} ${OPENROUTER_API_KEY_2:-none} $${LLMGATEWAY_NOT_READ} \xff", "latin-1")
    assert [each.name for each in unread_variables([*names, "LLMGATEWAY_NOT_READ"], file)] == ["LLMGATEWAY_NOT_READ"]


def test_check_config_tells_them_without_their_values(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(SMALL.replace("{base_url", "{api_key: '${LLMGATEWAY_LOCAL_KEY}', base_url"))
    typos = {"LLMGATEWAY_MASTERKEY": "sk-secret-3", "OVERLOAD_LAG_SECOND": "sk-secret-4", "RETRY_MAX": "sk-secret-5"}
    shown = run("check-config", file, LLMGATEWAY_LOCAL_KEY="sk-secret-6", **typos)
    assert shown.exit_code == 0, shown.output
    assert "no setting is called LLMGATEWAY_MASTERKEY; did you mean LLMGATEWAY_MASTER_KEY?" in shown.stderr
    assert "no setting is called OVERLOAD_LAG_SECOND; did you mean OVERLOAD_LAG_SECONDS?" in shown.stderr
    assert "no setting is called RETRY_MAX; did you mean RETRY_MAX_RETRIES?" in shown.stderr
    assert "LLMGATEWAY_LOCAL_KEY" not in shown.stderr
    assert "sk-secret" not in shown.output


def test_settings_that_are_not_valid_for_want_of_a_misspelt_one_say_so() -> None:
    refused = run("check-config", LLMGATEWAY_HOST="0.0.0.0", LLMGATEWAY_MASTERKEY="sk-secret-3")
    assert refused.exit_code == 1
    assert "refusing to listen on 0.0.0.0 without a key" in refused.stderr
    assert "no setting is called LLMGATEWAY_MASTERKEY; did you mean LLMGATEWAY_MASTER_KEY?" in refused.stderr
    assert "sk-secret" not in refused.output
