"""URLs that cannot be read as they were meant: the setting is named, and nothing of the password is shown."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from proxy.settings import Settings
from tests.cli.test_check_config import run

ESCAPES = "write # / ? @ within a password as %23 %2F %3F %40"
NO_PORT = f"the port is not a number from 1 to 65535; {ESCAPES}"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("DATABASE_URL", "postgresql://u:ge#heim@h/x", NO_PORT),
        ("DATABASE_URL", "postgresql://u:ge/heim@h/x", NO_PORT),
        ("DATABASE_URL", "postgresql://u:ge?heim@h/x", NO_PORT),
        ("DATABASE_URL", "postgresql://u:12#heim@h/x", ESCAPES),
        ("DATABASE_URL", "postgresql://u:12/heim@h/x", ESCAPES),
        ("DATABASE_URL", "postgresql://u:ge[heim@h/x", ESCAPES),
        ("DATABASE_URL", "postgresql://u:geheim@h:99999/x", NO_PORT),
        (
            "DATABASE_URL",
            "postgresql://u:heim@h/x?sslmode=verify-full&sslrootcert=/99999.pem",
            "sslrootcert names a file",
        ),
        ("DATABASE_URL", "postgresql://h/x?sslmode=require&sslcrl=/99999.pem", "sslcrl names a file"),
        ("DATABASE_URL", "postgresql://h/x?sslmode=verify-ca&sslrootcert=/", "sslrootcert names a file"),
        ("DATABASE_URL", "postgresql://h/x?sslcert=/99999.pem&sslkey=/99999.key", "sslcert names a file"),
        ("DATABASE_URL", "postgresql://u:12?heim@h/x", ESCAPES),
        ("DATABASE_URL", "postgresql://u:geheim@h:5432,i:99999/x", NO_PORT),
        ("DATABASE_URL", "postgresql://u:ge/12,heim@h:5432,i/x", NO_PORT),
        ("DATABASE_URL", "postgresql://u:12,34/heim@h:5432,i:5432/x", ESCAPES),
        ("LLMGATEWAY_VALKEY_URL", "redis://:ge#heim@h", NO_PORT),
        ("LLMGATEWAY_VALKEY_URL", "valkey://:12#heim@h", ESCAPES),
        ("BUDGET_WEBHOOK_URL", "https://h:geheim/", NO_PORT),
        ("OIDC_JWKS_URL", "https://h:geheim/", NO_PORT),
    ],
)
def test_a_url_that_cannot_be_read_is_named_without_its_value(name: str, value: str, words: str) -> None:
    for command in ("check-config", "serve"):
        refused = run(command, **{name: value})
        assert isinstance(refused.exception, SystemExit)
        assert refused.exit_code == 1
        assert f"{name}: " in refused.stderr
        assert words in refused.stderr
        shown = refused.output.replace(words, "")
        assert not [part for part in ("ge#", "ge/", "ge?", "ge[", "heim", "99999", "//u") if part in shown]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@host/",
        "https://secret@host/v1",
        "https://host/v1?key=secret",
        "https://host:secret/",
        "https://host:0/",
        "https://host:65536/",
    ],
)
def test_an_upstream_is_what_the_file_takes_for_one(url: str) -> None:
    refused = run("check-config", OPENROUTER_BASE_URL=url)
    assert refused.exit_code == 1
    assert "OPENROUTER_BASE_URL: must be a URL" in refused.stderr
    assert "with a port from 1 to 65535 if any, without user, query or fragment" in refused.stderr
    assert "secret" not in refused.output


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("database_url", "postgresql://u:ge%23h%2Fe%3Fi%40m@h:5432/x?sslmode=require"),
        ("database_url", "postgresql://me@[::1]/x"),
        ("database_url", "postgresql://u:ge,heim@h:5432,[::1]:5433,i/x?target_session_attrs=primary"),
        ("database_url", "postgresql://me@/x?host=/run/postgresql"),
        ("database_url", f"postgresql://h/x?sslmode=verify-full&sslrootcert={quote(__file__)}"),
        ("database_url", "postgresql://h/x?sslmode=disable&sslrootcert=/no.pem&sslcert=/no.pem&sslkey=/no.key"),
        ("database_url", "postgresql://h/x?sslmode=prefer&sslrootcert=/no.pem&sslcrl=/no.pem"),
        ("database_url", "sqlite:///a#b@c:d.db"),
        ("llmgateway_valkey_url", "rediss://:ge%23heim@h:6379/0"),
        ("openrouter_base_url", "https://h:65535/v1"),
    ],
)
def test_a_url_that_can_be_read_is_taken(name: str, value: str) -> None:
    assert name in Settings(**{name: value}).model_fields_set  # type: ignore[arg-type]
