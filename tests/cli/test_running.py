"""Commands that ask a running gateway: where they look for it, and what they say of what they find."""

from __future__ import annotations

import pytest

from tests.cli.test_check_config import run


@pytest.mark.parametrize(
    ("host", "asked"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", "localhost"),
        ("::1", "[::1]"),
        ("0.0.0.0", "127.0.0.1"),
        ("::", "[::1]"),
    ],
)
@pytest.mark.parametrize("command", [("health",), ("models",), ("route", "--model", "m")], ids=lambda words: words[0])
def test_the_gateway_is_asked_where_it_listens(command: tuple[str, ...], host: str, asked: str) -> None:
    told = run(*command, LLMGATEWAY_HOST=host, LLMGATEWAY_PORT="1", LLMGATEWAY_MASTER_KEY="sk-x")
    assert told.exit_code == 1
    assert f"No gateway answers at http://{asked}:1/" in told.stderr
    assert "InvalidURL" not in told.stderr
