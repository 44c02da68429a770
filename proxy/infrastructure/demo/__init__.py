"""The demo upstream: a stand-in for OpenRouter, for those who have no key yet.

It is a real HTTP server on loopback that speaks OpenRouter's wire format, so that everything from the first request
to the ledger works before any account exists. Its answers say that they come from no model. Model names that begin
with `demo/` fail on purpose, see `SPECIAL_MODELS`.
"""

from proxy.infrastructure.demo.catalogue import SPECIAL_MODELS
from proxy.infrastructure.demo.server import demo_app, demo_upstream

__all__ = ["SPECIAL_MODELS", "demo_app", "demo_upstream"]
