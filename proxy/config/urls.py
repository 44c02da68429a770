"""The kinds of URLs that settings have.

What is wrong with one is told when it is set, not when something is asked there, and without any part of it: of a URL
that is read wrongly, what looks like a host may be some of its password.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, TypeAlias
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from proxy.config.fields import BASE_URL, BASE_URL_IN_WORDS

SQLITE_PREFIX: Final = "sqlite:///"  # what follows is a path, not a URL's parts
_ESCAPES: Final = "write # / ? @ within a password as %23 %2F %3F %40"
_SERVERS_FILES: Final = ("sslrootcert", "sslcrl")  # of TLS, by which the server is known
_OWN_FILES: Final = ("sslcert", "sslkey")
ANY_ORIGIN: Final = "*"
_ORIGIN: Final = r"[a-z][a-z0-9+.-]*://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?"
_USUAL_PORTS: Final = {"http://": ":80", "https://": ":443"}  # browsers leave them out
_SECURE: Final = r"https://\S+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/\S*)?"

_Check: TypeAlias = Callable[[str], str]


def stripped(value: object) -> object:
    """A mounted secret often ends in a newline; what is blank is not set."""
    return (value.strip() or None) if isinstance(value, str) else value


def _parts_of(url: str) -> SplitResult:
    """Raises ValueError if it cannot be read, or has no port where one should be."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"is not a URL; {_ESCAPES}") from None
    try:
        is_port = parts.port is None or parts.port > 0
    except ValueError:
        is_port = False
    if not is_port:
        raise ValueError(f"the port is not a number from 1 to 65535; {_ESCAPES}")
    return parts


def _of_a_server(url: str) -> str:
    """Raises ValueError also if a password is cut where a number stands before the reserved character."""
    parts = _parts_of(url)
    if "#" in url or "@" in parts.path:
        raise ValueError(f"has # or / where no URL of a server has one; {_ESCAPES}")
    return url


def _of_a_database(url: str) -> str:
    """Raises ValueError also for a file of TLS that is not there: it would be taken for a server that is away."""
    if url.startswith(SQLITE_PREFIX):
        return url
    query, *_ = [_parts_of(_of_a_server(each)).query for each in _with_one_host_each(url)]
    try:
        options = {name: values[-1] for name, values in parse_qs(query, strict_parsing=bool(query)).items()}
    except ValueError:
        raise ValueError(f"what follows its ? cannot be read; {_ESCAPES}") from None
    for name in _files_read_with(options.get("sslmode") or os.environ.get("PGSSLMODE", "prefer")):
        file = options.get(name)
        if file and (not os.access(file, os.R_OK) or Path(file).is_dir()):
            raise ValueError(f"{name} names a file that cannot be read")
    return url


def _with_one_host_each(url: str) -> list[str]:
    """PostgreSQL may have several, with commas between them, each with a port of its own."""
    scheme, separator, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, hosts = authority.rpartition("@")
    return [f"{scheme}{separator}{user}{at}{host}{rest[len(authority) :]}" for host in hosts.split(",")]


def _files_read_with(mode: str) -> tuple[str, ...]:
    """The driver does not open the others, so they may be missing."""
    if mode == "disable":
        return ()
    return _OWN_FILES if mode in ("allow", "prefer") else (*_SERVERS_FILES, *_OWN_FILES)


def _of_valkey(url: str) -> str:
    return _of_a_server(
        _like(url, r"(valkey|redis)s?://\S+", "begin with valkey://, valkeys://, redis:// or rediss://")
    )


def _of_a_webhook(url: str) -> str:
    return _with_a_port(_like(url, r"https?://[^\s/]\S*", "begin with https:// or http://"))


def _of_an_upstream(url: str) -> str:
    return _with_a_port(_like(url, BASE_URL, f"be {BASE_URL_IN_WORDS}"))


def _of_an_issuer(url: str) -> str:
    """Who can change what comes from there can make tokens: plain HTTP is for a test on one's own machine only."""
    return _with_a_port(_like(url, _SECURE, "begin with https://, or with http:// for localhost alone"))


def _origins(given: object) -> object:
    """As browsers send them, of a list with commas. Raises ValueError."""
    if not isinstance(given, str):
        return given
    return tuple(map(_origin, given.split(","))) if given.strip() else ()


def _origin(text: str) -> str:
    origin = text.strip().lower().removesuffix("/")
    if origin != ANY_ORIGIN and re.fullmatch(_ORIGIN, origin) is None:
        raise ValueError("must be origins like https://chat.example.com, with commas between them, or *")
    for scheme, port in _USUAL_PORTS.items():
        if origin.startswith(scheme):
            return origin.removesuffix(port)
    return origin


def _like(url: str, pattern: str, must: str) -> str:
    if re.fullmatch(pattern, url) is None:
        raise ValueError(f"must {must}")
    return url


def _with_a_port(url: str) -> str:
    _parts_of(url)
    return url


def _if_given(check: _Check) -> Callable[[str | None], str | None]:
    return lambda url: None if url is None else check(url)


def _if_given_secretly(check: _Check) -> Callable[[SecretStr | None], SecretStr | None]:
    return lambda url: None if url is None else SecretStr(check(url.get_secret_value()))


UpstreamUrl = Annotated[str, AfterValidator(_of_an_upstream)]
OptionalIssuerUrl = Annotated[str | None, BeforeValidator(stripped), AfterValidator(_if_given(_of_an_issuer))]
OptionalDatabaseUrl = Annotated[str | None, BeforeValidator(stripped), AfterValidator(_if_given(_of_a_database))]
OptionalValkeyUrl = Annotated[
    SecretStr | None, BeforeValidator(stripped), AfterValidator(_if_given_secretly(_of_valkey))
]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins)]
OptionalWebhookUrl = Annotated[
    SecretStr | None, BeforeValidator(stripped), AfterValidator(_if_given_secretly(_of_a_webhook))
]
