"""llmgateway serve"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import click

from proxy.cli.failures import settings_or_fail
from proxy.server.saying import say
from proxy.settings import Settings


@click.command()
@click.option("--host", help="Address to listen on; beyond loopback only with LLMGATEWAY_MASTER_KEY. [LLMGATEWAY_HOST]")
@click.option("--port", type=int, help="Port to listen on, 0 for any free one. [LLMGATEWAY_PORT]")
@click.option("--workers", type=int, help="Processes that serve the port together. [LLMGATEWAY_WORKERS]")
@click.option("--take-over", is_flag=True, help="Take the port over from the gateway that runs in the data directory.")
def serve(host: str | None, port: int | None, workers: int | None, take_over: bool) -> None:
    """Run the gateway.

    Migrates the database first. While a PostgreSQL server cannot be reached, requests are served and their rows wait.

    Ctrl-C or SIGTERM stops it: running requests are finished and everything is booked. With several workers SIGHUP
    starts new ones and ends the old ones. With --take-over a new version goes on where the running one stops: no
    connection is refused or reset.
    """
    settings = settings_or_fail(llmgateway_host=host, llmgateway_port=port, llmgateway_workers=workers)
    say("Starting LLM Gateway …")
    gc.disable()  # what is imported stays: who looks for garbage there finds none; `proxy.server` enables it again
    from proxy.bootstrap.logs import log_as_configured  # noqa: PLC0415
    from proxy.server.metrics_directory import prepare_metrics_directory  # noqa: PLC0415

    with _told_why_not(settings):
        prepare_metrics_directory(settings)
    from proxy.bootstrap.config_file import configuration_file  # noqa: PLC0415
    from proxy.bootstrap.unread_variables import warn_of_unread_variables  # noqa: PLC0415
    from proxy.server.running import listen  # noqa: PLC0415

    log_as_configured(settings)
    warn_of_unread_variables(configuration_file(settings))
    with _told_why_not(settings):
        listen(settings, take_over=take_over)


@contextmanager
def _told_why_not(settings: Settings) -> Iterator[None]:
    """What keeps the gateway from starting, as a message; defects as they are."""
    try:
        yield
    except Exception as problem:
        from proxy.server.failures import why_not_started  # noqa: PLC0415  # and the database's driver

        words = why_not_started(problem, settings)
        if words is None:
            raise
        raise click.ClickException(words) from None
