"""Every kind that the contract tests run over: there must be one for each in the registry."""

from __future__ import annotations

from tests.providers.anthropic_upstream import ANTHROPIC
from tests.providers.google_upstream import GOOGLE
from tests.providers.kinds import Kind
from tests.providers.openai_upstreams import OPENAI_KINDS

KINDS: list[Kind] = [*OPENAI_KINDS, ANTHROPIC, GOOGLE]
