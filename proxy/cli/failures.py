"""Telling people what went wrong, in one sentence and without a traceback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from pydantic import ValidationError

from proxy.cli.plain import plain
from proxy.domain.errors import InvalidValue, ObjectNotFound
from proxy.settings import Settings, explain

if TYPE_CHECKING:
    from proxy.config.loading import LoadedConfig

_T = TypeVar("_T")


def settings_or_fail(**given: object) -> Settings:
    """The settings from the environment, with options given on the command line before them."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as problem:
        from proxy.bootstrap.unread_variables import unread_variables  # noqa: PLC0415

        wrong = [*explain(problem), *map(str, unread_variables(os.environ))]  # what is missing may be there, misspelt
        raise click.ClickException("Settings are not valid.\n  " + "\n  ".join(wrong)) from None


def config_or_fail(file: Path, settings: Settings) -> LoadedConfig:
    """The configuration of a file, with all its problems as one message."""
    from proxy.config.loading import load_config  # noqa: PLC0415
    from proxy.config.problems import ConfigErrors  # noqa: PLC0415

    try:
        return load_config(file, os.environ, settings.model_dump(include=settings.model_fields_set))
    except ConfigErrors as problem:
        raise click.ClickException(f"The configuration is not valid.\n{problem}") from None


def not_there(problem: ObjectNotFound) -> click.BadParameter:
    """For a key, team or organisation that an option of that name was to limit rows to."""
    kind = problem.kind
    return click.BadParameter(
        f"{plain(str(problem))} `llmgateway {kind}s list` shows those that there are.", param_hint=f"--{kind}"
    )


def with_database(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of work on the database; its trouble as a message."""
    from proxy.bootstrap.storage import DATABASE_ERRORS, advice_on  # noqa: PLC0415

    try:
        return asyncio.run(work)
    except InvalidValue as problem:
        raise click.ClickException(str(problem)) from None
    except DATABASE_ERRORS as problem:
        words = f"The database is not available ({type(problem).__name__}): {problem}{advice_on(problem)}"
        raise click.ClickException(words) from None
