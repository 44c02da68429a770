"""What is said of a path that is none.

Clients append their paths to a base URL that somebody has typed, and some ask for more of OpenAI's API than there is
here: what their user sees of it is this text alone.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from proxy.domain.errors import RouteNotFound

_COMPLETIONS: Final = "/v1/chat/completions"
_MODELS: Final = "/v1/models"
_BASE_URL: Final = "A client's base URL is the gateway's address and /v1, and nothing else."
_NOT_AZURE: Final = "Use OpenAI's client instead of Azure's."
_THERE_IS: Final = f"Of OpenAI's API there are POST {_COMPLETIONS} and GET {_MODELS}; see /docs."
_RESPONSES: Final = "Most clients can be set to chat completions instead of the Responses API."


def unknown_path(path: str, served: Container[str]) -> RouteNotFound:
    """For a path that is not among those `served` by the application that was asked."""
    if _COMPLETIONS not in served:
        return RouteNotFound(f"Unknown path {path} on this port.")
    asked = path.rstrip("/")
    for known in (_COMPLETIONS, _MODELS):
        if asked.endswith(known.removeprefix("/v1")):
            told = f"Unknown path {path}: did you mean {known}? {_BASE_URL}"
            return RouteNotFound(f"{told} {_NOT_AZURE}" if "/deployments/" in path else told)
    told = f"Unknown path {path}. {_THERE_IS}"
    return RouteNotFound(f"{told} {_RESPONSES}" if asked.endswith("/responses") else told)
