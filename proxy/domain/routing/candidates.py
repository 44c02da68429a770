"""What a plan consists of, and how it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy.domain.catalog import Deployment, ModelRoute
from proxy.domain.routing.filters import Objection

_LONGEST_SHORT_FORM = 1000


@dataclass(frozen=True, slots=True)
class Candidate:
    """One deployment to try, and why it stands at this place of the plan.

    `public_model` is the catalog's name of the model; that of a fallback is not the one that was asked for. One that
    `must_rest` is asked when its cool-down is over.
    """

    deployment: Deployment
    public_model: str
    reason: str
    is_fallback: bool = False
    must_rest: bool = False

    @property
    def model(self) -> str:
        """The model's name to send."""
        return self.deployment.model


@dataclass(frozen=True, slots=True)
class Dropped:
    """A deployment that is not asked, and why; None if the catalog does not have the model at all."""

    deployment: Deployment | None
    public_model: str
    objection: Objection

    @property
    def name(self) -> str:
        return self.deployment.name if self.deployment else self.public_model

    @property
    def reason(self) -> str:
        return self.objection.reason


@dataclass(frozen=True, slots=True)
class Plan:
    """The candidates in the order in which to try them, and what was dropped.

    `route` is that of the model asked for, or of the one that `auto` chose: it says when to hedge.
    """

    requested: str
    route: ModelRoute
    candidates: tuple[Candidate, ...]
    dropped: tuple[Dropped, ...] = ()

    def deployment_names(self) -> list[str]:
        """Of the candidates, then of those that were dropped, each once."""
        everybody = [each.deployment for each in self.candidates] + [each.deployment for each in self.dropped]
        return list(dict.fromkeys(each.name for each in everybody if each is not None))

    def short(self) -> str:
        """One line for a header: `weighted: a > b > fallback c; dropped: d (no vision)`."""
        names = [("fallback " if each.is_fallback else "") + each.deployment.name for each in self.candidates]
        text = f"{self.route.strategy}: {' > '.join(names) or 'none'}"
        if self.dropped:
            text += f"; dropped: {', '.join(f'{each.name} ({each.reason})' for each in self.dropped)}"
        return _as_header(text)

    def explain(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return {
            "requested": self.requested,
            "model": self.route.name,
            "strategy": str(self.route.strategy),
            "candidates": [
                _described(each.deployment)
                | {"public_model": each.public_model, "reason": each.reason, "is_fallback": each.is_fallback}
                for each in self.candidates
            ],
            "dropped": [
                _described(each.deployment)
                | {
                    "public_model": each.public_model,
                    "reason": each.reason,
                    "cause": str(each.objection.cause),
                    "retry_after_seconds": each.objection.retry_after_seconds,
                }
                for each in self.dropped
            ],
        }


def _described(deployment: Deployment | None) -> dict[str, Any]:
    if deployment is None:
        return {"deployment": None, "provider": None, "model": None}
    return {"deployment": deployment.name, "provider": deployment.provider, "model": deployment.model}


def _as_header(text: str) -> str:
    """Names may hold anything; a header holds printable ASCII, and not too much of it."""
    text = "".join(character if " " <= character <= "~" else "?" for character in text)
    return text if len(text) <= _LONGEST_SHORT_FORM else text[: _LONGEST_SHORT_FORM - 3] + "..."
