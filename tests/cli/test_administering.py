"""organisations, teams, keys, budgets, limits and audit, on the database itself."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.domain.access.scopes import Scope, Subject
from tests.access.tenancy import Tenancy, limit

DOCUMENT = Path(__file__).parents[2] / "docs" / "keys.md"
SECRET = re.compile(r"^sk-[A-Za-z0-9_-]{43}$")


@dataclass(frozen=True)
class Command:
    """`llmgateway` with a database of its own."""

    url: str

    def run(self, *arguments: str) -> str:
        """What it writes to stdout."""
        done = CliRunner().invoke(main, arguments, env={"DATABASE_URL": self.url})
        assert done.exit_code == 0, done.output
        return done.stdout

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json"))

    def refused(self, *arguments: str) -> str:
        """Why it will not."""
        done = CliRunner().invoke(main, arguments, env={"DATABASE_URL": self.url})
        assert done.exit_code in (1, 2), done.output
        assert not SECRET.search(done.output)
        return done.stderr


@pytest.fixture
def command(database_url: str) -> Command:
    return Command(database_url)


@pytest.fixture
def tenants(command: Command) -> Command:
    """An organisation with a team with a key."""
    command.run("organisations", "create", "acme")
    command.run("teams", "create", "search", "--organisation", "acme", "--model", "z-ai/*")
    command.run("keys", "create", "bot", "--team", "search", "--budget", "10", "--rpm", "60", "--tag", "ci")
    return command


def test_a_secret_is_alone_on_stdout(tenants: Command) -> None:
    secret = tenants.run("keys", "create", "other", "--team", "search").strip()
    assert SECRET.match(secret)
    shown = tenants.run("keys", "show", "other") + tenants.run("keys", "show", "other", "--json")
    assert secret not in shown
    assert hashlib.sha256(secret.encode()).hexdigest() not in shown


def test_tables_name_owners_and_json_has_their_ids(tenants: Command) -> None:
    team = tenants.json("teams", "show", "search")
    assert tenants.json("keys", "list", "--team", "search")[0]["team_id"] == team["id"]
    for table, names in (
        (tenants.run("keys", "list"), ("bot", "search")),
        (tenants.run("teams", "list"), ("search", "acme", "z-ai/*")),
        (tenants.run("limits", "list"), ("bot", "60")),
        (tenants.run("budgets", "list"), ("bot: monthly", "10", "month")),
        (tenants.run("budgets", "show", "bot: monthly"), ("spent usd", "reserved usd", "leased by", "bot")),
    ):
        assert not [name for name in names if name not in table]
    assert team["id"] not in tenants.run("keys", "list")


def test_a_name_and_an_id_are_the_same(tenants: Command) -> None:
    for kind, name in (("organisations", "acme"), ("teams", "search"), ("keys", "bot"), ("budgets", "bot: monthly")):
        named = tenants.json(kind, "show", name)
        assert tenants.json(kind, "show", named["id"])["id"] == named["id"]


def test_what_is_not_given_stays_and_what_is_cleared_goes(tenants: Command) -> None:
    tenants.run("keys", "update", "bot", "--owner", "ada", "--model", "z-ai/glm-4.6", "--expires", "2100-01-01")
    key = tenants.json("keys", "update", "bot", "--priority", "low")
    assert (key["owner"], key["models"], key["priority"], key["tags"]) == ("ada", ["z-ai/glm-4.6"], "low", ["ci"])
    assert key["expires_at"] == "2100-01-01T00:00:00+00:00"
    key = tenants.json("keys", "update", "bot", "--clear", "owner", "--clear", "expires_at", "--clear", "tags")
    assert (key["owner"], key["expires_at"], key["tags"]) == (None, None, [])
    assert key["models"] == ["z-ai/glm-4.6"]
    assert tenants.json("teams", "update", "search", "--any-model")["models"] is None
    assert tenants.json("organisations", "update", "acme", "--model", "z-ai/*")["models"] == ["z-ai/*"]
    assert "--any-model" in tenants.refused("teams", "update", "search", "--model", "a/b", "--any-model")


def test_a_limit_is_changed_where_there_is_one(tenants: Command) -> None:
    tenants.run("limits", "set", "--key", "bot", "--tpm", "1000", "--clear", "rpm")
    (limit,) = tenants.json("limits", "list", "--key", "bot")
    assert (limit["requests_per_minute"], limit["tokens_per_minute"]) == (None, 1000)
    tenants.run("limits", "set", "--model", "*", "--concurrent", "4")
    assert len(tenants.json("limits", "list")) == 2
    (of_models,) = tenants.json("limits", "list", "--model", "*")
    tenants.run("limits", "delete", of_models["id"])
    assert tenants.json("limits", "list", "--model", "*") == []


def test_a_limit_of_which_nothing_is_left_is_taken_away(tenants: Command) -> None:
    assert "it was taken away" in tenants.run("limits", "set", "--key", "bot", "--clear", "rpm")
    assert tenants.json("limits", "list") == []
    tenants.run("limits", "set", "--key", "bot", "--rpm", "5", "--tpm", "9")
    assert tenants.json("limits", "set", "--key", "bot", "--clear", "rpm")["tokens_per_minute"] == 9


def test_of_several_limits_for_a_subject_none_is_changed(tenants: Command) -> None:
    """Such as were made when a second one was not refused: the lower one would go on to count."""
    subject = Subject(Scope.MODEL, "*")
    twice = [limit(subject, requests_per_minute=rate) for rate in (60, 120)]
    for each in twice:
        asyncio.run(Tenancy(tenants.url).add(each))
    told = tenants.refused("limits", "set", "--model", "*", "--rpm", "600")
    assert all(str(each.id) in told for each in twice)
    tenants.run("limits", "delete", str(twice[0].id))
    assert tenants.json("limits", "set", "--model", "*", "--rpm", "600")["requests_per_minute"] == 600


def test_budgets_are_for_somebody(tenants: Command) -> None:
    tenants.run("budgets", "create", "all of it", "1000", "--gateway", "--soft", "--period", "rolling:86400")
    tenants.run("budgets", "create", "each user", "1", "--end-user", "*", "--period", "day")
    (budget,) = tenants.json("budgets", "list", "--gateway")
    assert (budget["hard"], budget["period"], budget["amount_usd"]) == (False, "rolling:86400", "1000")
    assert tenants.json("budgets", "set", "all of it", "900.5", "--hard")["amount_usd"] == "900.5"
    assert "one of --gateway" in tenants.refused("budgets", "create", "nobody's", "1")
    assert "one of --gateway" in tenants.refused("budgets", "create", "two", "1", "--gateway", "--team", "search")
    tenants.run("budgets", "delete", "each user")
    assert "There is no budget 'each user'" in tenants.refused("budgets", "show", "each user")


def test_the_key_of_another_proxy_is_taken_over(tenants: Command) -> None:
    digest = hashlib.sha256(b"sk-of-litellm").hexdigest()
    imported = tenants.json("keys", "import", "old", "--hash", digest.upper(), "--team", "search")
    assert imported["name"] == "old"
    assert "hash" in tenants.refused("keys", "import", "bad", "--hash", "12ab")


def test_what_is_wrong_is_said_in_a_sentence(tenants: Command) -> None:
    assert tenants.refused("keys", "create", "x", "--team", "nope") == "Error: There is no team 'nope'.\n"
    assert "monthly_budget_usd: " in tenants.refused("keys", "create", "x", "--budget", "ten")
    tenants.run("keys", "create", "bot")
    assert tenants.refused("keys", "show", "bot") == "Error: Several keys are named 'bot': use the id.\n"
    tenants.run("keys", "revoke", tenants.json("keys", "list", "--team", "search")[0]["id"])
    elsewhere = ("teams", "list", "--url", "http://127.0.0.1:1", "--key-env", "PASTED")
    pasted = CliRunner().invoke(main, elsewhere, env={"PASTED": "sk-two\nlines"})
    assert "no key has" in pasted.stderr
    assert "sk-two" not in pasted.output
    assert "Set NO_KEY to a key" in tenants.refused(
        "teams", "list", "--url", "http://127.0.0.1:1", "--key-env", "NO_KEY"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "show", "\udcff"),
        ("keys", "create", "x", "--tag", "\udcff"),
        ("audit", "--actor", "\udcff"),
        ("usage", "--by", "day", "--key", "\udcff"),
        ("prices", "set", "\udcff", "--input", "1", "--output", "1"),
    ],
    ids=" ".join,
)
def test_bytes_that_are_no_text_are_said_so(command: Command, arguments: tuple[str, ...]) -> None:
    """Python has a lone surrogate for each of them."""
    assert " text" in command.refused(*arguments)


@pytest.mark.parametrize("url", ["localhost", "ftp://localhost", "http://", "http://[::1", "http://a:xyzzy@localhost"])
def test_what_is_no_address_is_said_and_a_password_in_it_is_not(url: str) -> None:
    refused = CliRunner().invoke(main, ["teams", "list", "--url", url], env={"LLMGATEWAY_MASTER_KEY": "sk-x"})
    assert refused.exit_code == 1
    assert "like http://127.0.0.1:4000" in refused.stderr or "takes no user and no password" in refused.stderr
    assert "xyzzy" not in refused.output


def test_the_audit_log_tells_who_did_what(tenants: Command) -> None:
    tenants.run("limits", "set", "--key", "bot", "--rpm", "120")
    tenants.run("keys", "rotate", "bot", "--grace", "60")
    tenants.run("keys", "revoke", "bot")
    table = tenants.run("audit")
    for told in ("requests_per_minute: 60 → 120", "disabled: no → yes", "rotate", "revoke", "search"):
        assert told in table
    newest, *_ = entries = tenants.json("audit", "-n", "3")
    assert [entry["action"] for entry in entries] == ["revoke", "rotate", "update"]
    assert (newest["before"]["disabled"], newest["after"]["disabled"]) == (False, True)
    assert newest["actor"].startswith("cli")
    assert "kind must be one of: organisations, teams" in tenants.refused("audit", "--kind", "foo")
    (made,) = tenants.json("audit", "--kind", "teams")
    assert (made["before"], made["after"]["name"]) == (None, "search")
    tenants.run("prices", "set", "z-ai/glm-4.6", "--input", "3", "--output", "4")
    (priced,) = tenants.json("audit", "--kind", "prices")
    assert (priced["action"], priced["object_id"]) == ("set", "z-ai/glm-4.6")
    assert [priced[when]["input_cost_per_1m_tokens"] for when in ("before", "after")] == ["0.0001", "3"]


def test_every_example_of_the_document_works(command: Command) -> None:
    """Behind the day's, which need a running gateway and have a test of their own: they have made a team."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("llmgateway ")]
    examples = [shlex.split(line)[1:] for line in lines if "$GATEWAY" not in line and " serve" not in line]
    assert len(examples) > 10
    command.run("teams", "create", "search")
    for example in examples:
        command.run(*example)
