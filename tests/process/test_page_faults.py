"""Large prompts, and the memory that they are held in."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

from tests.process.conftest import serving

_CLIENTS, _REQUESTS = 8, 30
_BODY = json.dumps({"model": "demo", "messages": [{"role": "user", "content": "x" * 300_000}]})
_MOST_FAULTS_EACH = 6  # of 73 pages that a body has; by default it would be some 20
_MINOR_FAULTS = 7  # of the fields behind the command's name, by proc_pid_stat(5)


def test_large_prompts_find_the_memory_of_those_before_them(tmp_path: Path) -> None:
    with serving(tmp_path) as gateway, ThreadPoolExecutor(_CLIENTS) as clients:
        list(clients.map(_ask, [gateway.url] * _CLIENTS))  # for which it is new
        before = _page_faults(gateway.process.pid)
        list(clients.map(_ask, [gateway.url] * _CLIENTS))
        faults = _page_faults(gateway.process.pid) - before
        assert faults < _MOST_FAULTS_EACH * _CLIENTS * _REQUESTS
        assert gateway.stop() == 0


def _ask(url: str) -> None:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=20)
    for _ in range(_REQUESTS):
        connection.request("POST", "/v1/chat/completions", _BODY, {"Content-Type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert response.status == 200
    connection.close()


def _page_faults(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[_MINOR_FAULTS])
