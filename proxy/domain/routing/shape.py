"""What routing reads of a request."""

from __future__ import annotations

import re
from functools import cached_property
from typing import Any, Final, NamedTuple

from proxy.domain.catalog import Capability
from proxy.domain.chat import ChatRequest
from proxy.domain.json_bytes import look_into
from proxy.domain.values import estimate_tokens

MOST_LISTED_MODELS: Final = 10
_MOST: Final = 2**53  # more than anything that is counted here
_PLAIN_DIGITS: Final = 12  # fewer than that has
_SESSION_MEMBERS = ("prompt_cache_key", "session_id", "user")
_OUTPUT_MEMBERS = ("max_completion_tokens", "max_tokens")
_PARTS: Final = {
    "image_url": Capability.VISION,
    "input_audio": Capability.AUDIO,
    "file": Capability.FILES,
}
_NEEDY_WORDS = tuple(f'"{name}"'.encode() for name in _PARTS)
_FETCHED_WORDS: Final = (b'"image_url"', b'"file"')
_CARRIED_WORD: Final = b'"input_audio"'
# It begins with letters that stand so as a member's name alone: texts full of data URLs cost no look at each of them.
_IMAGE = re.compile(
    rb'url" (?:(?<="url") | (?<="image_url")) \s{0,16}:\s{0,16} ("data:image [^"]{0,45} ;base64,)', re.VERBOSE
)
_SOUND = re.compile(
    rb'"input_audio" \s*: \s*\{ \s*(?: "format" \s*: \s*"\w{1,16}" \s*, \s*)? "data" \s*: \s*"', re.VERBOSE
)


class MentionedParts(NamedTuple):
    """What kinds of parts the messages name: how often such as may be fetched from elsewhere, and whether any but text.

    What is fetched is not in the request; what else there is may be priced otherwise than text. `image_bytes` of the
    request are those of pictures: how many tokens one is, its size in pixels says and not that of its file.
    `audio_bytes` are those of sounds, of which a token takes far more than of text.
    """

    fetched: int = 0
    has_media: bool = False
    image_bytes: int = 0
    audio_bytes: int = 0


_NO_PARTS: Final = MentionedParts()


class RequestShape:
    """A request as routing sees it. Nothing of it is parsed before it is asked for, and then once.

    `tags` are those that a deployment must have to be asked. Members of types that they should not have are as good
    as absent: whoever answers may judge them.
    """

    def __init__(self, request: ChatRequest, tags: frozenset[str] = frozenset()) -> None:
        self.model = request.model
        self.tags = tags
        self._request = request

    @property
    def most_input_tokens(self) -> int:
        """No estimate of the prompt can be higher than this. Costs nothing: JSON is never shorter than its text."""
        return estimate_tokens(len(self._request.body))

    @cached_property
    def input_tokens(self) -> int:
        """The prompt's estimated tokens. Parses the messages."""
        return self._request.estimated_input_tokens()

    @cached_property
    def max_output_tokens(self) -> int | None:
        """The limit that the request sets to its answer, None if it sets none.

        Of two limits the higher one: which of them counts is the upstream's to say.
        """
        return max_output_tokens(self._request)

    @cached_property
    def choices(self) -> int:
        """How many answers it asks for (`n`)."""
        return choices(self._request)

    @cached_property
    def needs(self) -> frozenset[Capability]:
        """What a deployment must be capable of. Parses the messages only if they may hold more than text."""
        needs = self._needs_of_parts()
        if self._holds("tools") or self._holds("functions"):
            needs.add(Capability.TOOLS)
        if self._wants_json_schema():
            needs.add(Capability.JSON_SCHEMA)
        return frozenset(needs)

    @cached_property
    def session(self) -> str | None:
        """The key by which requests belong together: the first of prompt_cache_key, session_id and user."""
        for name in _SESSION_MEMBERS:
            key = self._value(name)
            if isinstance(key, str) and key:
                return key
        return None

    @property
    def lists_models(self) -> bool:
        """Whether the request has a member `models`, whatever is in it."""
        return "models" in self._request.members

    @property
    def models(self) -> tuple[str, ...]:
        """The models that the request itself names as fallbacks; no more than anyone would try."""
        raw = self._request.members.get("models")
        if raw is None:
            return ()
        names = look_into(bytes(raw))
        if not isinstance(names, list):
            return ()
        return tuple(name for name in names[:MOST_LISTED_MODELS] if isinstance(name, str))

    @property
    def mentioned_parts(self) -> MentionedParts:
        """Found without parsing the messages."""
        return mentioned_parts(self._request)

    def _value(self, name: str) -> Any:
        raw = self._request.member(name)
        return None if raw is None else look_into(raw)

    def _holds(self, name: str) -> bool:
        """Whether that array is there and not empty."""
        raw = (self._request.member(name) or b"").strip()
        return raw.startswith(b"[") and not raw[1:].lstrip().startswith(b"]")

    def _wants_json_schema(self) -> bool:
        raw = self._request.member("response_format")
        if raw is None or b'"json_schema"' not in raw:
            return False
        wanted = look_into(raw)
        return isinstance(wanted, dict) and wanted.get("type") == "json_schema"

    def _needs_of_parts(self) -> set[Capability]:
        if not self._request.has_parts:
            return set()
        messages = self._request.messages
        if not any(word in messages for word in _NEEDY_WORDS):
            return set()
        kinds = self._request.content_part_types()
        return {capability for kind, capability in _PARTS.items() if kind in kinds}


def max_output_tokens(request: ChatRequest) -> int | None:
    """As RequestShape has it, for who needs nothing else of it."""
    most = 0
    for name in _OUTPUT_MEMBERS:
        if name in request.members:
            most = max(most, _whole(request.members[name]))
    return most or None


def choices(request: ChatRequest) -> int:
    """As RequestShape has it."""
    return max(1, _whole(request.members["n"])) if "n" in request.members else 1


def mentioned_parts(request: ChatRequest) -> MentionedParts:
    """As RequestShape has it. Looks at the messages only if they may have parts."""
    if not request.has_parts:
        return _NO_PARTS
    messages = request.messages
    fetched = sum(map(messages.count, _FETCHED_WORDS))
    image_bytes = _image_bytes(messages) if fetched else 0
    has_audio = _CARRIED_WORD in messages
    audio_bytes = _audio_bytes(messages) if has_audio else 0
    return MentionedParts(fetched, fetched > 0 or has_audio, image_bytes, audio_bytes)


def _image_bytes(messages: bytes) -> int:
    """Of all data URLs in base64 that are an image's URL; a text may begin like one."""
    total, image = 0, _IMAGE.search(messages)
    while image is not None:
        end = messages.find(b'"', image.end())
        total += end - image.start(1)
        image = _IMAGE.search(messages, end)
    return total


def _audio_bytes(messages: bytes) -> int:
    total, sound = 0, _SOUND.search(messages)
    while sound is not None:
        end = messages.find(b'"', sound.end())
        total += end - sound.end()
        sound = _SOUND.search(messages, end)
    return total


def _whole(raw: Any) -> int:
    """A count in a member's JSON, also one that is written 2.0 or is beyond all numbers; 0 if it is none."""
    text = bytes(raw)
    if len(text) <= _PLAIN_DIGITS and text.isdigit():
        return int(text)
    value = look_into(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        return 0
    return int(min(value, _MOST))
