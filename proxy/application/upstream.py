"""One call to one deployment: what is sent, and the facts that come to light while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from proxy.domain.chat import NO_FACTS, AnswerFacts
from proxy.domain.records import record

IS_LAST = "is_last"  # in a streamed content's metadata: with these bytes the answer is complete
IS_ALL = "is_all"  # in the first content's: nothing comes after these bytes
PUMP = "pump"  # in the first content's: a Pumping that hands the next bytes on faster than contents can


class Sink(Protocol):
    """Where a stream goes. Writing raises ConnectionError when nobody reads any more."""

    @property
    def is_full(self) -> bool:
        """Whether it has more than it should hold, because its reader is slow."""
        ...

    def write(self, data: bytes, chunk: bytes | None = None) -> bool:
        """Takes the bytes, and says whether it would take more now.

        `chunk` is the same as a chunk of HTTP/1.1, where it came as one.
        """
        ...

    async def drained(self) -> None:
        """Returns when it takes more."""
        ...


class Pumping(Protocol):
    """Writes a stream's bytes to the sink as they come, and leaves it to iteration how the stream ends."""

    async def __call__(self, sink: Sink) -> None: ...


class FactSource(Protocol):
    """Reads what an answer said of itself, as far as it has come."""

    def facts(self) -> AnswerFacts: ...

    def estimated_output_tokens(self) -> int:
        """A guess from the text that was relayed, for streams that ended before their usage came."""
        ...


class NothingCame:
    """The answer of a call that has none (yet)."""

    def facts(self) -> AnswerFacts:
        return NO_FACTS

    def estimated_output_tokens(self) -> int:
        return 0


def _nothing_to_close() -> None:
    pass


def nobody_to_tell(_generation_id: str) -> None:
    """Takes a generation's id, and does nothing with it."""


@dataclass(slots=True)
class UpstreamCall:
    """A request on its way to one deployment.

    The first block is what to send. The second is written by whoever performs the call, at once as it happens, so
    that it can be read also when the call is cancelled half-way.
    """

    body: bytes
    model: str
    deadline: float  # of the gateway's clock: no attempt starts and no wait ends after it
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    whole_events: bool = False  # a stream's events are never handed on in parts, however long
    blamed: set[str] = field(default_factory=set)  # deployments whose breakers count this request as a failure already
    max_attempts: int | None = None  # what is left for this call of the request's attempts; None: as many as it likes
    on_generation: Callable[[str], None] = nobody_to_tell  # told the generation's id as soon as it is known

    attempts: int = 0
    refusals: int = 0  # attempts that were answered with a 4xx status, or never had a connection
    upstream_seconds: float = 0.0
    generation_id: str | None = None  # as the headers tell it: an answer that is cut off may not come to say it
    answer: FactSource = field(default_factory=NothingCame)
    hang_up: Callable[[], None] = _nothing_to_close  # ends the connection to the upstream, at once
    observed: object = None  # what an observer keeps of the call until it is booked

    def generates(self, generation_id: str | None) -> None:
        """The upstream has told its name for what it generates."""
        if generation_id and generation_id != self.generation_id:
            self.generation_id = generation_id
            self.on_generation(generation_id)

    @property
    def may_have_generated(self) -> bool:
        """Whether an attempt ended, or goes on, otherwise than by a refusal: then something may have been billed."""
        return self.attempts > self.refusals


@record
class Answer:
    """What goes back to the client: the upstream's bytes and the headers that describe them."""

    body: bytes
    content_type: str
    headers: Mapping[str, str]
    model: str
    provider: str
    attempts: int
