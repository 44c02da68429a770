"""Other gateways, installed by name and pinned version into a directory of their own, and how they are started.

Each is set up as its documentation says for one process behind one key, with logs at errors only. What is different
from that has its reason beside it. A gateway that cannot be installed here is reported as not measured.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchmarks.compare.answers import MODEL
from benchmarks.compare.targets import Surroundings, Target, bearer

_LITELLM, _PORTKEY, _FERROGW, _ROLTER = "1.109.1", "1.15.2", "1.5.10", "0.1.0"
_OPENTELEMETRY = [f"opentelemetry-{part}==1.33.1" for part in ("api", "sdk", "exporter-otlp")]
# LiteLLM refuses to start with a master key that looks weak.
_LONG_KEY = "sk-5e0c9a71b4d2f8363c1e7a90d58b24f6a7c3e1908d4b5f62"

# Portkey 1.15.2 answers every stream with 500, because headers that fetch() returns cannot be changed (its issues 1389
# and 1550). This copies them, once a call.
_PORTKEY_FIX = """
const original = globalThis.fetch, Answer = globalThis.Response;
globalThis.fetch = (...request) => original(...request).then(({ body, status, statusText, headers }) =>
  new Answer(body, { status, statusText, headers: new Headers(headers) }));
"""

_FERROGW_CONFIG = """
strategy: {mode: single}
targets: [{virtual_key: openai}]
plugins:
  - name: request-logger
    type: logging
    stage: before_request
    enabled: true
    config: {level: error, persist: true}
"""

_ROLTER_CONFIG = """
[server]
host = "127.0.0.1"
port = PORT

[[providers]]
name = "upstream"
kind = "openai_compatible"
api_base = "UPSTREAM"

[[routes]]
model = "MODEL"
strategy = "round_robin"
[[routes.targets]]
provider = "upstream"
model = "MODEL"

[[virtual_keys]]
key = "sk-benchmark"
name = "benchmark"
models = []
"""


class NotMeasuredError(Exception):
    """Why a target cannot be measured here."""


def _installed(place: Path, wanted: str, install: Callable[[], None]) -> None:
    """Installs unless this very version is there. A stopped installation is begun anew."""
    marker = place.with_name(f"{place.name}.installed")
    if marker.exists() and marker.read_text() == wanted:
        return
    place.mkdir(parents=True, exist_ok=True)
    install()
    marker.write_text(wanted)


def _run(command: Sequence[str], where: Path) -> None:
    try:
        ran = subprocess.run(command, cwd=where, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NotMeasuredError(f"it cannot be installed: {error}") from error
    if ran.returncode:
        raise NotMeasuredError(f"it cannot be installed: {(ran.stderr or ran.stdout).strip()[-500:]}")


def _python(cache: Path, name: str, requirements: Sequence[str], overrides: Sequence[str] = ()) -> Path:
    """The programs of a virtual environment with these packages, compiled, because starts are measured."""
    place, tools = cache / name, cache / "tools"

    def install() -> None:
        for each in (place, tools):
            _run([sys.executable, "-m", "venv", str(each)], cache)
        _run([str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv"], cache)
        replaced = cache / f"{name}.overrides"
        replaced.write_text("\n".join(overrides))
        python = str(place / "bin" / "python")
        uv = [str(tools / "bin" / "uv"), "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        _run([*uv, "--overrides", str(replaced), *requirements], cache)

    _installed(place, "\n".join([*requirements, *overrides]), install)
    return place / "bin"


def litellm(around: Surroundings) -> Target:
    """One worker, one model, a master key; without its database, which needs an engine that no index has."""
    # Without OpenTelemetry, which is in its image, every request tries a failing import anew. The newest versions of
    # the overridden packages reach some indexes days after LiteLLM pins them.
    wanted = [f"litellm[proxy]=={_LITELLM}", *_OPENTELEMETRY]
    programs = _python(around.cache, "litellm", wanted, ["litellm-proxy-extras>=0.4.100", "certifi>=2025.1"])
    to = {"model": f"openai/{MODEL}", "api_base": f"{around.upstream}/v1", "api_key": "sk-upstream"}
    config = {
        "model_list": [{"model_name": MODEL, "litellm_params": to}],
        "litellm_settings": {"set_verbose": False, "request_timeout": 600},
        "general_settings": {"master_key": _LONG_KEY},
    }
    path = around.write("config.yaml", json.dumps(config))
    where = ["--host", "127.0.0.1", "--port", str(around.port), "--num_workers", "1"]
    return Target(
        version=_LITELLM,
        does="one key, cost, callbacks; no database, no rows",
        command=[str(programs / "litellm"), "--config", path, *where],
        environment={"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        headers=bearer(_LONG_KEY),
    )


def portkey(around: Surroundings) -> Target:
    """Routed by headers; it keeps no keys and no books."""
    place = around.cache / "portkey"
    # Newer versions of its HTTP server are outside of what it was tested with.
    package = {"private": True, "dependencies": {"@portkey-ai/gateway": _PORTKEY}}
    described = json.dumps({**package, "overrides": {"@hono/node-server": "1.14.2"}})

    def install() -> None:
        (place / "package.json").write_text(described)
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], place)

    _installed(place, described, install)
    node = shutil.which("node")
    if node is None:
        raise NotMeasuredError("there is no node")
    server = place / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    fix = around.write("fix.cjs", _PORTKEY_FIX)
    return Target(
        version=_PORTKEY,
        does="routes by headers; no keys, no rows",
        command=[node, "--require", fix, str(server), "--headless", f"--port={around.port}"],
        environment={"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1,localhost"},
        headers={
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"{around.upstream}/v1",
            **bearer("sk-upstream"),
        },
    )


def ferrogw(around: Surroundings) -> Target:
    """With its request logger on PostgreSQL, and its rate limit, which is on by default, out of reach."""
    programs = _python(around.cache, "ferrogw", [f"ferrogw=={_FERROGW}"])
    key = "fgw_benchmark_master_key_0123456789"
    environment: Mapping[str, str] = {
        "GATEWAY_CONFIG": around.write("config.yaml", _FERROGW_CONFIG),
        "PORT": str(around.port),
        "OPENAI_API_KEY": "sk-upstream",
        "OPENAI_BASE_URL": f"{around.upstream}/v1",
        "MASTER_KEY": key,
        "LOG_LEVEL": "error",
        "RATE_LIMIT_RPS": "1000000",
        "RATE_LIMIT_BURST": "1000000",
        "REQUEST_LOG_STORE_BACKEND": "postgres",
        "REQUEST_LOG_STORE_DSN": f"{around.database.get_uri()}&sslmode=disable",
    }
    return Target(
        version=_FERROGW,
        does="one key, a row for each request",
        command=[str(programs / "ferrogw"), "serve"],
        environment=environment,
        headers=bearer(key),
        database=around.database,
        rows_in="request_logs",
    )


def rolter(around: Surroundings) -> Target:
    """One route, one virtual key, no database."""
    programs = _python(around.cache, "rolter", [f"rolter=={_ROLTER}"])
    config = _ROLTER_CONFIG.replace("PORT", str(around.port)).replace("MODEL", MODEL)
    path = around.write("rolter.toml", config.replace("UPSTREAM", around.upstream))
    return Target(
        version=_ROLTER,
        does="one key; no rows",
        command=[str(programs / "rolter"), "gateway", "-c", path],
        environment={"ROLTER_UPDATE_CHECK": "false", "RUST_LOG": "error"},
        headers=bearer("sk-benchmark"),
    )
