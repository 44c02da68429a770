"""Starts a gateway as its environment says, and tells which of the modules that are named as arguments it has loaded.

In a process of its own: what tests have imported would be there as well.
"""

from __future__ import annotations

import json
import os
import signal
import sys

from proxy.bootstrap.gateway import RunningGateway, import_for_workers
from proxy.bootstrap.logs import log_as_configured
from proxy.cli.failures import settings_or_fail
from proxy.server.listening import listening
from proxy.server.running import run, serve


def loaded() -> list[str]:
    """Of the modules that are asked for."""
    return [name for name in sys.argv[1:] if name in sys.modules]


def main() -> None:
    """By a gateway that serves; and by one whose workers are to have an issuer and Valkey, before it forks them."""
    settings = settings_or_fail()
    log_as_configured(settings)
    when_serving: list[str] = []

    def ready(_gateway: RunningGateway) -> None:
        when_serving.extend(loaded())
        os.kill(os.getpid(), signal.SIGTERM)

    run(serve(settings, listening(settings), ready))
    more = {
        "oidc_issuer": "https://issuer.example",
        "oidc_audience": "gateway",
        "oidc_roles": "*=member",
        "llmgateway_valkey_url": "valkey://127.0.0.1:1",
    }
    import_for_workers(settings_or_fail(**more))
    json.dump({"serving": when_serving, "before the fork": loaded()}, sys.stdout)


if __name__ == "__main__":
    main()
