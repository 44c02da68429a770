"""Environment variables, and the files that stand for some of them.

`NAME_FILE` names a file whose text, but for its last line ends, is what `NAME` would hold, as images of databases read
their passwords: orchestrators mount secrets as files, and change those while a process runs.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SUFFIX: Final = "_FILE"
_MOST_BYTES: Final = 65_536


class SecretFileError(ValueError):
    """A file that cannot stand for a variable: says which one and why, nothing that it holds."""


def secret_file(name: str, environment: Mapping[str, str]) -> Path | None:
    """The file that stands for a variable; None if none does."""
    path = environment.get(name + SUFFIX, "").strip()
    return Path(path) if path else None


def variable(name: str, environment: Mapping[str, str]) -> str | None:
    """A variable's value, or the text of the file that stands for it; None if there is neither.

    Raises SecretFileError: the file cannot be read, holds nothing, or both are given.
    """
    value, path = environment.get(name), secret_file(name, environment)
    if path is None:
        return value
    if value and value.strip():
        raise SecretFileError(f"{name} and {name}{SUFFIX} are both set: remove one of them")
    return _text(path, f"the file that {name}{SUFFIX} names")


def _text(path: Path, called: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise SecretFileError(f"{called} is no regular file")
        with path.open("rb") as file:
            read = file.read(_MOST_BYTES + 1)
        text = read.decode("utf-8-sig")
    except OSError as problem:
        raise SecretFileError(f"{called} cannot be read: {problem.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"{called} is not UTF-8") from None
    if len(read) > _MOST_BYTES:
        raise SecretFileError(f"{called} has more than {_MOST_BYTES} bytes")
    if not text.strip():
        raise SecretFileError(f"{called} is empty")
    return text.rstrip("\r\n")  # as shells have it, too ($(<file)): the last line's end belongs to the file alone
