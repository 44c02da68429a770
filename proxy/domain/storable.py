"""Text that every database takes. PostgreSQL takes no NUL, and no engine a lone surrogate.

What a client names is checked where it comes in, and is told to be wrong; what is only noted is stored without them.
"""

from __future__ import annotations

from proxy.domain.errors import InvalidRequest


def is_storable(text: str) -> bool:
    """Whether something can be named so: what is not storable is the name of nothing."""
    return "\x00" not in text and (text.isascii() or not any("\ud800" <= each <= "\udfff" for each in text))


def check_storable(name: str, text: str) -> None:
    """Raises InvalidRequest, with the parameter's name, for what no database takes."""
    if not is_storable(text):
        raise InvalidRequest(f"'{name}' must be text without NUL characters and lone surrogates.", param=name)


def storable(text: str) -> str:
    """The text without NUL characters, and with `?` for lone surrogates."""
    return text.replace("\x00", "").encode(errors="replace").decode()
