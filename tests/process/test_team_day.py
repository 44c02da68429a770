"""A team's day in ten commands, taken out of README.md as they are written there, in a real shell."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.process.conftest import Serving, serving

_DOCUMENT = Path(__file__).parents[2] / "README.md"
_BLOCK = re.compile(r"<!-- a team's day[^\n]*-->\n```sh\n(.*?)```", re.DOTALL)
_COMMAND = re.compile(r"^# (\d+)\. [^\n]*\n(.*?)(?=^# \d+\. |\Z)", re.DOTALL | re.MULTILINE)
_MASTER_KEY = "a-master-key-of-this-test"
_TIMEOUT_SECONDS = 120


@dataclass(frozen=True)
class Ran:
    """What a command wrote, and how it ended."""

    out: str
    err: str
    status: int


def written_commands() -> dict[int, str]:
    """The commands of the document by their numbers."""
    blocks = _BLOCK.findall(_DOCUMENT.read_text())
    assert len(blocks) == 1
    return {int(number): command.strip() for number, command in _COMMAND.findall(blocks[0])}


def run_in_one_shell(commands: Mapping[int, str], directory: Path, environment: Mapping[str, str]) -> dict[int, Ran]:
    """One after the other, as somebody types them: what one exports the next one has, and an error ends nothing."""
    script = "\n".join(
        f"{{ {command}\n}} >{number}.out 2>{number}.err; echo $? >{number}.status"
        for number, command in commands.items()
    )
    subprocess.run(
        ["bash", "-c", f"{script}\nenv >after"],
        cwd=directory,
        env=dict(environment),
        timeout=_TIMEOUT_SECONDS,
        check=True,
    )
    return {
        number: Ran(
            (directory / f"{number}.out").read_text(),
            (directory / f"{number}.err").read_text(),
            int((directory / f"{number}.status").read_text()),
        )
        for number in commands
    }


def with_our_commands(directory: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """`llmgateway` and `python` are those of this interpreter."""
    for name, arguments in (("llmgateway", "-m proxy"), ("python", ""), ("python3", "")):
        command = directory / name
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        command.chmod(0o755)
    return {**environment, "PATH": f"{directory}{os.pathsep}{os.environ['PATH']}"}


@dataclass(frozen=True)
class Day:
    """The gateway on which it happened, what the commands did, and the shell's variables at its end."""

    gateway: Serving
    ran: Mapping[int, Ran]
    key: str
    old_key: str


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    directory = tmp_path_factory.mktemp("day")
    commands = written_commands()
    assert list(commands) == list(range(1, 11))
    with serving(directory, LLMGATEWAY_MASTER_KEY=_MASTER_KEY) as gateway:
        programs, shell = directory / "bin", directory / "shell"
        programs.mkdir()
        shell.mkdir()
        environment = {
            "PYTHONPATH": str(_DOCUMENT.parent),
            **with_our_commands(programs, gateway.environment),
            "GATEWAY": gateway.url,
            "COLUMNS": "200",
        }
        # the old key is kept beside: command 9 forgets it
        commands[8] += "\nexport OLD_KEY=$OPENAI_API_KEY"
        ran = run_in_one_shell(commands, shell, environment)
        after = dict(line.split("=", 1) for line in (shell / "after").read_text().splitlines() if "=" in line)
        yield Day(gateway, ran, after.get("OPENAI_API_KEY", ""), after.get("OLD_KEY", ""))


def test_only_the_command_that_asks_too_often_fails(day: Day) -> None:
    assert {number: each.err for number, each in day.ran.items() if each.status} == {4: day.ran[4].err}
    assert "Traceback" not in "".join(day.gateway.output)


def test_the_team_and_its_key_are_made(day: Day) -> None:
    assert re.search(r"^name +search$", day.ran[1].out, re.MULTILINE)
    assert day.old_key.startswith("sk-")
    assert day.ran[2].out == ""
    assert day.old_key not in day.ran[2].err
    assert "not shown again" in day.ran[2].err


def test_the_sdk_gets_an_answer_and_then_the_limit(day: Day) -> None:
    assert "Hello" in day.ran[3].out
    last_line = day.ran[4].err.strip().splitlines()[-1]
    assert last_line.startswith("openai.RateLimitError: Error code: 429 - Rate limit reached for key")
    assert "requests per min (RPM): Limit 60, Used 60, Requested 1. Please try again in" in last_line


def test_the_key_sees_itself(day: Day) -> None:
    me = json.loads(day.ran[5].out)
    assert (me["name"], me["team"]["name"]) == ("search-app", "search")
    assert [each["requests_per_minute"]["limit"] for each in me["limits"]] == [60]
    assert [each["amount_usd"] for each in me["budgets"]] == ["10"]


def test_limit_and_budget_are_raised_and_shown(day: Day) -> None:
    assert re.search(r"^requests_per_minute +600$", day.ran[6].out, re.MULTILINE)
    assert re.search(r"^amount_usd +25$", day.ran[7].out, re.MULTILINE)
    shown = day.ran[8].out
    assert re.search(r"^amount_usd +25$", shown, re.MULTILINE)
    for word in ("spent", "reserved", "leased", "resets_at"):
        assert word in shown


def test_the_new_secret_is_good_and_so_is_the_old_one_for_a_while(day: Day) -> None:
    assert day.key.startswith("sk-")
    assert day.key != day.old_key
    for key in (day.key, day.old_key):
        used = subprocess.run(
            [sys.executable, "-c", _ASK, f"{day.gateway.url}/v1", key],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "Hello" in used.stdout


_ASK = """
import sys
from openai import OpenAI
client = OpenAI(base_url=sys.argv[1], api_key=sys.argv[2], max_retries=0)
raw = client.chat.completions.with_raw_response.create(
    model="z-ai/glm-4.6", messages=[{"role": "user", "content": "Hello"}]
)
assert raw.headers["x-ratelimit-limit-requests"] == "600"
print(raw.parse().choices[0].message.content)
"""


def test_the_audit_log_tells_all_of_it_and_no_secret(day: Day) -> None:
    told = [line.split() for line in day.ran[10].out.splitlines() if line.startswith("20")]
    done = [next(word for word in line if word in ("create", "update", "rotate")) for line in told]
    assert done == ["rotate", "update", "update", "create", "create", "create", "create"]
    assert all("master" in line for line in told)
    for change in ("requests_per_minute: 60 → 600", "amount_usd: 10 → 25"):
        assert change in day.ran[10].out
    written = day.ran[10].out + "".join(day.gateway.output)
    assert not [secret for secret in (day.key, day.old_key, _MASTER_KEY) if secret in written]


def test_the_same_commands_work_on_the_database_itself(day: Day) -> None:
    over_http = day.gateway.command("keys", "list", "--json", "--url", day.gateway.url)
    directly = day.gateway.command("keys", "list", "--json")
    assert directly.returncode == 0, directly.stderr
    assert json.loads(directly.stdout) == json.loads(over_http.stdout) != []
