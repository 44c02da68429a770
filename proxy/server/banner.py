"""What someone at a terminal wants to know first."""

from __future__ import annotations

import json

from proxy.bootstrap.gateway import RunningGateway
from proxy.settings import Settings


def _key_to_try(settings: Settings) -> tuple[str, str]:
    """What a call of a model needs for a key, and how to come by it."""
    if settings.llmgateway_master_key is None and settings.llmgateway_require_keys != "always":
        return "", ""
    if settings.llmgateway_master_key is not None and settings.llmgateway_master_key_calls_models:
        return " -H 'Authorization: Bearer '\"$LLMGATEWAY_MASTER_KEY\"", ""
    return " -H 'Authorization: Bearer '\"$KEY\"", "  llmgateway keys create --help   (a key that calls models)\n"


def banner(gateway: RunningGateway, address: tuple[str, int], settings: Settings, workers: int = 1) -> str:
    """Where it listens, what stands behind it, and a command to try it."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    url = f"http://{host}:{address[1]}"
    key, first = _key_to_try(settings)
    body = json.dumps({"model": gateway.example_model, "messages": [{"role": "user", "content": "Hello"}]})
    hint = "\n  (no OPENROUTER_API_KEY: answers are made up)" if gateway.uses_demo else ""
    several = f"  workers   {workers}\n" if workers > 1 else ""
    return (
        f"\nLLM Gateway is ready\n"
        f"  URL       {url}/v1   (docs: {url}/docs, health: {url}/health)\n"
        f"  upstream  {gateway.upstream}{hint}\n"
        f"{several}"
        f"  database  {gateway.database}\n\n"
        f"Try it:\n{first}"
        f"  curl {url}/v1/chat/completions -H 'Content-Type: application/json'{key} \\\n"
        f"    -d '{body}'\n"
    )
