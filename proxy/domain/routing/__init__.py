"""Which deployment answers a request, and which ones stand behind it: pure rules, explained in words.

A client that names a model gets that model or an error, never another one, unless it asked for others (`auto`, its own
`models`) or the operator configured fallbacks.
"""

from proxy.domain.routing.auto import ModelPolicy, fallback_model, select_model
from proxy.domain.routing.candidates import Candidate, Dropped, Plan
from proxy.domain.routing.failures import failure_kind
from proxy.domain.routing.filters import Cause, Objection
from proxy.domain.routing.peak_ewma import PeakEwma
from proxy.domain.routing.planning import may_come_after, plan, plan_after
from proxy.domain.routing.shape import RequestShape, choices, max_output_tokens, mentioned_parts
from proxy.domain.routing.state import DeploymentState, States, StateSnapshot, all_unused
from proxy.domain.routing.surroundings import Surroundings

__all__ = [
    "Candidate",
    "Cause",
    "DeploymentState",
    "Dropped",
    "ModelPolicy",
    "Objection",
    "PeakEwma",
    "Plan",
    "RequestShape",
    "StateSnapshot",
    "States",
    "Surroundings",
    "all_unused",
    "choices",
    "failure_kind",
    "fallback_model",
    "max_output_tokens",
    "may_come_after",
    "mentioned_parts",
    "plan",
    "plan_after",
    "select_model",
]
