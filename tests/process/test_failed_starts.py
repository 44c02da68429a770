"""A start that fails says which setting is wrong, and what it takes."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.process.conftest import clean_environment

_FULL_BYTES = 100_000


def ended(
    directory: Path, command: str, settings: Mapping[str, str] | None = None, full_bytes: int = resource.RLIM_INFINITY
) -> str:
    """What a command says that ends at once, in a sentence; no file may grow beyond `full_bytes`."""
    given = {"LLMGATEWAY_PORT": "0", "LLMGATEWAY_DATA_DIR": str(directory), **(settings or {})}
    done = subprocess.run(
        [sys.executable, "-m", "proxy", command],
        env=clean_environment(**given),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (full_bytes, full_bytes)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def refused(directory: Path, **settings: str) -> str:
    """What `llmgateway serve` says when it ends at once."""
    said = ended(directory, "serve", settings)
    assert "database" not in said
    return said


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_disk_that_is_full_ends_the_command(tmp_path: Path, command: str) -> None:
    """No file may grow beyond what the first pages of the database take: its migration fails."""
    said = ended(tmp_path, command, full_bytes=_FULL_BYTES)
    assert "Error: The database is not available (OperationalError): disk I/O error" in said


def test_a_port_that_is_taken_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
        told = refused(tmp_path, LLMGATEWAY_METRICS_PORT=port)
    assert f"Cannot listen on 127.0.0.1:{port}: Address already in use. Set LLMGATEWAY_METRICS_PORT to another." in told


def test_ports_that_are_equal_are_said_so(tmp_path: Path) -> None:
    told = refused(tmp_path, LLMGATEWAY_PORT="4401", LLMGATEWAY_ADMIN_PORT="4401")
    assert "LLMGATEWAY_PORT and LLMGATEWAY_ADMIN_PORT are both 4401" in told


def test_a_host_that_nobody_knows_is_the_host_settings(tmp_path: Path) -> None:
    told = refused(tmp_path, LLMGATEWAY_HOST="nohost.invalid", LLMGATEWAY_MASTER_KEY="sk-x")
    assert "Cannot listen on nohost.invalid" in told
    assert "LLMGATEWAY_HOST (--host) must be" in told


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_data_directory_that_is_none_is_the_directorys(tmp_path: Path, workers: str) -> None:
    (tmp_path / "file").write_text("")
    told = refused(tmp_path, LLMGATEWAY_DATA_DIR=str(tmp_path / "file"), LLMGATEWAY_WORKERS=workers)
    assert f"LLMGATEWAY_DATA_DIR ({tmp_path / 'file'}) must be a directory" in told


def test_a_file_that_cannot_be_used_is_not_repeated(tmp_path: Path) -> None:
    (tmp_path / "gateway.yaml").write_text("providers: {fake: sk-plain-SECRET, sk-other-SECRET: {nonsense: 1}}")
    told = refused(tmp_path)
    assert "gateway.yaml:1: providers.…: must be a mapping of keys to values" in told
    assert "llmgateway check-config" in told
    assert "SECRET" not in told


def test_a_pipe_is_no_configuration_file(tmp_path: Path) -> None:
    """Nobody writes into it: whoever opened it would wait."""
    os.mkfifo(tmp_path / "gateway.yaml")
    assert "gateway.yaml is a pipe. LLMGATEWAY_CONFIG must be a file that can be read more than once" in refused(
        tmp_path
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"DATABASE_URL": "sqlite:///{}/taken"}, "taken: Is a directory. DATABASE_URL ({}/taken) must be a file"),
        ({"DATABASE_URL": "sqlite:///{}/file/below"}, "DATABASE_URL ({}/file/below) must be a file"),
        ({"PROMETHEUS_MULTIPROC_DIR": "{}/none"}, "PROMETHEUS_MULTIPROC_DIR ({}/none) must be a directory"),
    ],
)
def test_a_place_that_is_none_is_that_of_its_setting(tmp_path: Path, settings: dict[str, str], words: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").write_text("")
    data = tmp_path / "data"
    told = refused(tmp_path, LLMGATEWAY_DATA_DIR=str(data), **{k: v.format(tmp_path) for k, v in settings.items()})
    assert words.format(tmp_path) in told
    assert "LLMGATEWAY_DATA_DIR" not in told


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OIDC_ISSUER", "http://x", "must begin with https://, or with http:// for localhost alone"),
        ("OPENROUTER_BASE_URL", "foo", "must be a URL that begins with http:// or https://"),
        ("OIDC_ROLES", "nonsense", "must be pairs like 'platform=admin,*=member'"),
        ("PAYLOAD_REDACTION", "nonsense", "must be `module:function`"),
    ],
)
def test_what_a_setting_takes_is_told_in_words(tmp_path: Path, name: str, value: str, words: str) -> None:
    assert f"{name}: {words}" in refused(tmp_path, **{name: value})


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "max_queue_size must be a positive integer"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT must be a non-negative integer"),
    ],
)
def test_what_spans_cannot_be_made_by_is_told(tmp_path: Path, workers: str, name: str, value: str, words: str) -> None:
    collector = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "LLMGATEWAY_WORKERS": workers}
    told = refused(tmp_path, **collector, **{name: value})
    assert f"Error: A variable OTEL_… has a value that cannot be used: {words}" in told
