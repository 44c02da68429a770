"""What virtual keys look like, and how they are kept."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import Final

PREFIX: Final = "sk-"
_RANDOM_BYTES = 32  # 256 bits
_SHAPE = re.compile(r"sk-[A-Za-z0-9_-]{16,200}")  # ours have 43 characters; imported ones may have others
_SHOWN_CHARACTERS = 4


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key in clear: shown once to who asked for it, and kept nowhere."""

    secret: str

    def __repr__(self) -> str:
        return f"NewKey({self.hint})"

    @property
    def hash(self) -> str:
        return key_hash(self.secret)

    @property
    def hint(self) -> str:
        """Enough to tell it from others, too little to guess it by."""
        return hint_of(self.secret)


def generate_key() -> NewKey:
    return NewKey(PREFIX + secrets.token_urlsafe(_RANDOM_BYTES))


def hint_of(secret: str) -> str:
    return f"{PREFIX}…{secret[-_SHOWN_CHARACTERS:]}"


def key_hash(secret: str) -> str:
    """SHA-256, in hexadecimal: LiteLLM keeps its keys so, too. A random key of 160 bits and more needs no salt."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def has_key_shape(text: str) -> bool:
    """Whether it can be a key at all: what cannot is never looked up."""
    return _SHAPE.fullmatch(text) is not None
