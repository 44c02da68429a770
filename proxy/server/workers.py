"""Several worker processes on the same sockets, looked after by gunicorn's arbiter.

Gunicorn forks, replaces who died, restarts one after the other and passes signals on; nothing of its HTTP is used. What
takes long to import is imported once, before the forks, so workers start fast and share that memory.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Final

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from gunicorn.glogging import Logger
from gunicorn.workers.base import Worker

from proxy.bootstrap.gateway import RunningGateway
from proxy.server.listening import Handover, Listening, handover_path
from proxy.settings import Settings

OnReady = Callable[[RunningGateway], None]
Serve = Callable[[OnReady], None]  # in a worker: until it is told to stop
_HEARTBEAT_SECONDS: Final = 1.0
_HUNG_SECONDS: Final = 120  # also the longest start
_START_SECONDS: Final = 30.0
_NUMBERS: Final = 65536
_CLEAN_UP_SECONDS: Final = 15.0
_AGAIN_SECONDS: Final = 2.0
_logger = logging.getLogger(__name__)


def supervise(settings: Settings, sockets: Listening, serve: Serve, on_first_ready: OnReady) -> None:
    """Runs workers until SIGINT or SIGTERM, and exits. `serve` serves in a worker, and tells when it is ready.

    SIGHUP starts new workers, and ends the old ones when those serve. If no worker has come to serve, the first failure
    ends it all.
    """
    gc.collect()
    gc.freeze()  # a collection would write to the pages that workers share
    crew = _Crew(sockets, serve, on_first_ready, Handover(handover_path(settings), sockets))
    try:
        _Arbiter(_Application(settings, crew), crew).run()
    finally:
        crew.handover.close()


class _Crew:
    """What the workers have in common: how to serve, and who of them has come to it, by their numbers."""

    def __init__(self, sockets: Listening, serve: Serve, on_first_ready: OnReady, handover: Handover) -> None:
        self.sockets = sockets
        self.handover = handover
        self._serve = serve
        self._on_first_ready = on_first_ready
        self._served = mmap.mmap(-1, _NUMBERS)  # shared with all that are forked

    @property
    def has_served(self) -> bool:
        """Whether any of them ever did."""
        return self._served[0] != 0

    def is_serving(self, number: int) -> bool:
        return self._served[1 + number % (_NUMBERS - 1)] != 0

    def serve(self, number: int, on_ready: Callable[[], None]) -> None:
        """In a worker, until it is told to stop."""
        self.handover.forget()

        def ready(gateway: RunningGateway) -> None:
            if not self.has_served:
                self._served[0] = 1
                self._on_first_ready(gateway)
            self._served[1 + number % (_NUMBERS - 1)] = 1
            self.handover.open()
            self.sockets.release_predecessor()
            on_ready()

        self._serve(ready)


class _Arbiter(Arbiter):  # type: ignore[misc]  # the library has no types
    """Gunicorn's, but that workers are not ended before those that take their places serve."""

    def __init__(self, application: BaseApplication, crew: _Crew) -> None:
        self._crew = crew
        self._stops = False
        super().__init__(application)

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT002  # the library's
        """What nobody accepts any more is to be refused at once, not to wait for the last worker and be reset."""
        self._stops = True
        self._crew.sockets.close()
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Several workers may fail to start at the same time; the second must not interrupt what the first began."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._stops:
                raise

    def manage_workers(self) -> None:
        if len(self.WORKERS) > self.num_workers:
            self._await_the_new()
        super().manage_workers()

    def _await_the_new(self) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            numbers = sorted(worker.age for worker in self.WORKERS.values())[-self.num_workers :]
            if all(self._crew.is_serving(number) for number in numbers):
                return
            time.sleep(0.05)
            self.reap_workers()


class _Application(BaseApplication):  # type: ignore[misc]  # the library has no types
    """Gunicorn's configuration, and the crew as what its workers load."""

    def __init__(self, settings: Settings, crew: _Crew) -> None:
        self._settings = settings
        self._crew = crew
        sockets = [each for several in crew.sockets.sockets.values() for each in several]
        self._bind = [f"fd://{os.dup(each.fileno())}" for each in sockets]  # gunicorn closes what it is given
        super().__init__()

    def load_config(self) -> None:
        grace = self._settings.shutdown_delay_seconds + self._settings.shutdown_grace_seconds + _CLEAN_UP_SECONDS
        options = {
            "bind": self._bind,
            "workers": self._settings.llmgateway_workers,
            "worker_class": _GatewayWorker,
            "timeout": _HUNG_SECONDS,
            "graceful_timeout": int(grace),
            "logger_class": _Log,
            "proc_name": "llmgateway",
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> _Crew:
        return self._crew


class _GatewayWorker(Worker):  # type: ignore[misc]  # the library has no types
    """Serves as a single process does, and lets the arbiter know that its event loop turns."""

    def init_signals(self) -> None:
        """The arbiter's are not for workers, and the event loop sets its own."""
        for name in self.SIGNALS:
            signal.signal(name, signal.SIG_DFL)

    def run(self) -> None:
        crew: _Crew = self.wsgi
        for each in self.sockets:  # the arbiter's copies would keep the port open when this worker has closed its own
            each.close()
        self.booted = crew.has_served  # before anybody has served, a failure to start ends everything
        self.notify()
        try:
            crew.serve(self.age, self._beat)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the arbiter starts another worker, or ends
            _logger.error("a worker could not serve", extra={"reason": f"{type(problem).__name__}: {problem}"})
            if not crew.has_served:
                sys.exit(Arbiter.WORKER_BOOT_ERROR)
            time.sleep(_AGAIN_SECONDS)
            sys.exit(1)

    def _beat(self) -> None:
        self.notify()
        if os.getppid() != self.ppid:
            _logger.error("the supervisor is gone; stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        asyncio.get_running_loop().call_later(_HEARTBEAT_SECONDS, self._beat)


class _Log(Logger):  # type: ignore[misc]  # the library has no types
    """Gunicorn's messages go where all others do."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002  # where its configuration would have them
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)
