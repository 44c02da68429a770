"""Long requests whose messages are plain texts, read in one look.

The usual way goes through a body twice: for its members, and once more for what is in the messages. Of 100 KB each
look costs a tenth of a short request. Here the parser reads both at once, and whoever wants the raw messages, which
hardly anybody does, has them looked for then. What is unusual in any way is left to the other way, which also says what
is wrong with it.
"""

from __future__ import annotations

from operator import attrgetter
from struct import Struct
from typing import Any, Final

import msgspec

from proxy.api.openai.fields import FIELDS, Role, check_members
from proxy.domain.errors import InvalidRequest

LONG_BYTES: Final = 4096  # shorter ones are read faster the usual way
_MODEL, _MESSAGES = "model", "messages"
_OTHERS: Final = tuple(name for name in FIELDS if name not in (_MODEL, _MESSAGES))
_FLAT_CONTENTS: Final = frozenset([(b'"',), (b"n",)])  # how texts and null begin, as `_first` has it


class FlatMessage(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message as most are: a role, and a text that is not made a string of."""

    role: Role
    content: msgspec.Raw = msgspec.Raw(b"null")


_Flat = msgspec.defstruct(
    "_Flat",
    [
        (_MESSAGES, list[FlatMessage]),
        (_MODEL, msgspec.Raw),
        *((name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in _OTHERS),
    ],
    forbid_unknown_fields=True,
)
_requests: msgspec.json.Decoder[Any] = msgspec.json.Decoder(_Flat)
raw_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_content, _first = attrgetter("content"), Struct("c").unpack_from  # without a view of each


class FlatMembers(dict[str, msgspec.Raw]):
    """The raw members of a request's top level; its messages are there when they are asked for by `[]`."""

    __slots__ = ("_body",)

    def __init__(self, members: dict[str, msgspec.Raw], body: bytes) -> None:
        super().__init__(members)
        self._body = body

    def __missing__(self, name: str) -> msgspec.Raw:
        if name != _MESSAGES:
            raise KeyError(name)
        found = self[name] = raw_members.decode(self._body)[name]
        return found


def flat_members(body: bytes) -> FlatMembers | None:
    """The members of a body (UTF-8), of the right types. None if there are others than FIELDS, or no model, or messages
    that are more than texts."""
    try:
        request = _requests.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None
    if not are_flat(request.messages):
        return None
    values = zip((_MODEL, *_OTHERS), msgspec.structs.astuple(request)[1:], strict=True)
    members = FlatMembers({name: value for name, value in values if value is not msgspec.UNSET}, body)
    try:
        check_members(members)
    except InvalidRequest:  # of several wrong ones the first is named, in the body's order
        return None
    return members


def are_flat(messages: list[FlatMessage]) -> bool:
    """Whether there are any, and all their contents are texts or null."""
    return bool(messages) and _FLAT_CONTENTS.issuperset(map(_first, map(_content, messages)))
