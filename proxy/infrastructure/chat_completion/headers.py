"""The headers of upstream calls, both ways."""

from __future__ import annotations

from collections.abc import Mapping

from multidict import CIMultiDict

from proxy.infrastructure.chat_completion.dialect import Dialect
from proxy.infrastructure.posting import without_controls

_BEARER_HEADER = "authorization"
_RELAYED_AS_THEY_ARE = {"Content-Type": "application/json", "Accept-Encoding": "identity"}


class CallHeaders:
    """What a call to one upstream carries, and what of the answer's headers a client may see.

    `operators` are the operator's own: they take the place of the client's, and of all others but those that say what
    the body is.
    """

    def __init__(self, dialect: Dialect, api_key: str, operators: Mapping[str, str]) -> None:
        standing = CIMultiDict({"User-Agent": "llmgateway"})
        if api_key:
            name = dialect.api_key_header
            standing[name] = f"Bearer {api_key}" if name.lower() == _BEARER_HEADER else api_key
        for name, value in (*operators.items(), *_RELAYED_AS_THEY_ARE.items()):
            standing[name] = value
        self.standing = standing
        self._sent_on = tuple(name for name in dialect.sent_on if name not in standing)
        self._handed_back = {name.lower(): name for name in dialect.handed_back}

    def of_call(self, clients: Mapping[str, str]) -> Mapping[str, str]:
        """Those to send, for a client that sent these."""
        headers = self.standing.copy()
        headers.update(self.sent_on(clients))
        return headers

    def sent_on(self, clients: Mapping[str, str]) -> dict[str, str]:
        """Those of a client's headers that go on to the upstream, besides the standing ones."""
        found = {name: value for name in self._sent_on if (value := clients.get(name)) is not None}
        if found and "Connection" in clients:
            own = {name.strip() for name in clients["Connection"].lower().split(",")}
            return {name: value for name, value in found.items() if name.lower() not in own}  # RFC 9110, 7.6.1
        return found

    def handed_back(self, upstreams: Mapping[str, str]) -> dict[str, str]:
        """Those that a client may see."""
        known = self._handed_back
        return {
            known[lower]: without_controls(value)
            for name, value in upstreams.items()
            if (lower := name.lower()) in known
        }
