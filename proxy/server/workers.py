"""Several worker processes on the same sockets, looked after by gunicorn's arbiter.

Gunicorn forks, replaces who died, restarts one after the other and passes signals on; nothing of its HTTP is used. What
takes long to import is imported once, before the forks, so workers start fast and share that memory.
"""

from __future__ import annotations

import asyncio
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
from proxy.server.backoff import BackOff
from proxy.server.failures import StartFailed, why_not_started
from proxy.server.listening import Handover, Listening, handover_path
from proxy.server.memory import keep_for_good
from proxy.server.succession import Succession
from proxy.settings import Settings

OnReady = Callable[[RunningGateway], None]
Serve = Callable[[OnReady, Callable[[], bool]], None]  # in a worker: until it is told to stop
_HEARTBEAT_SECONDS: Final = 1.0
_HUNG_SECONDS: Final = 120  # also the longest start
_LOOK_SECONDS: Final = 0.1  # while old workers wait for those that replace them
_NUMBERS: Final = 65536
_CLEAN_UP_SECONDS: Final = 15.0
_WORDS_BYTES: Final = 65536
_ARBITERS_LOG: Final = "gunicorn.error"
_EXITED: Final = "Worker (pid:%s) exited with code %s."
_BOOT_ERROR: Final = Arbiter.WORKER_BOOT_ERROR
_ASKED_TO_END: Final = frozenset({signal.SIGTERM, signal.SIGQUIT, signal.SIGINT})
_logger = logging.getLogger(__name__)


def supervise(settings: Settings, sockets: Listening, serve: Serve, on_first_ready: OnReady) -> None:
    """Runs workers until SIGINT or SIGTERM, and exits.

    `serve` serves in a worker, tells when it is ready, and can ask whether, when it is to end, others take its place.

    SIGHUP starts new workers, and ends the old ones when those serve. A worker that ends is replaced, with growing
    pauses while they end soon after their start. If no worker has come to serve, the first failure ends it all.

    Raises StartFailed.
    """
    keep_for_good()  # or a collection would write to the pages that workers share
    crew = _Crew(settings, sockets, serve, on_first_ready)
    log = logging.getLogger(_ARBITERS_LOG)
    log.addFilter(crew.is_worth_telling)
    try:
        _Arbiter(_Application(settings, crew), crew).run()
    finally:
        log.removeFilter(crew.is_worth_telling)
        crew.handover.close()


class _Crew:
    """What the workers have in common: how to serve, who of them has come to it, by their numbers, and why none has."""

    def __init__(self, settings: Settings, sockets: Listening, serve: Serve, on_first_ready: OnReady) -> None:
        self.sockets = sockets
        self.handover = Handover(handover_path(settings, sockets), sockets)
        self._settings = settings
        self._serve = serve
        self._on_first_ready = on_first_ready
        self._served = mmap.mmap(-1, _NUMBERS)  # shared with all that are forked
        self._ends = mmap.mmap(-1, 1)
        self._failure = mmap.mmap(-1, _WORDS_BYTES)

    @property
    def has_served(self) -> bool:
        """Whether any of them ever did."""
        return self._served[0] != 0

    @property
    def ends(self) -> bool:
        """Whether all of them end, and nobody takes their places."""
        return self._ends[0] != 0

    def end(self) -> None:
        self._ends[0] = 1

    def is_serving(self, number: int) -> bool:
        return self._served[1 + number % (_NUMBERS - 1)] != 0

    @property
    def failure(self) -> str:
        """Why the first worker that failed could not serve; empty if none has said so."""
        return self._failure[:].rstrip(b"\0").decode(errors="replace")

    def note_failure(self, problem: Exception) -> None:
        """In a worker that could not serve."""
        words = why_not_started(problem, self._settings)
        if words is None or self.has_served:
            reason = f"{type(problem).__name__}: {problem}"
            _logger.error("a worker could not serve", extra={"reason": words or reason}, exc_info=words is None)
        if not self.has_served and not self.failure:
            text = (words or f"A worker could not serve ({type(problem).__name__}): {problem}").encode()[:_WORDS_BYTES]
            self._failure[: len(text)] = text

    def is_worth_telling(self, record: logging.LogRecord) -> bool:
        """Of what the arbiter logs. Before anybody serves, the one who starts it is told in one message why not."""
        if self.has_served:
            return True
        is_failed_start = record.msg == _EXITED and isinstance(record.args, tuple) and record.args[-1] == _BOOT_ERROR
        return record.levelno >= logging.WARNING and not is_failed_start

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

        self._serve(ready, lambda: not self.ends)


class _Arbiter(Arbiter):  # type: ignore[misc]  # the library has no types
    """Gunicorn's, but that workers are not ended before those that take their places serve, and replaced with care."""

    def __init__(self, application: BaseApplication, crew: _Crew) -> None:
        self._crew = crew
        self._back_off = BackOff()
        self._succession = Succession()
        self._started: dict[int, float] = {}
        self._told_to_end: set[int] = set()
        super().__init__(application)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        """A start that has failed is the caller's to tell of."""
        if exit_status and not self._crew.has_served:
            self.stop()
            raise StartFailed(self._crew.failure or reason or "No worker could serve.")
        super().halt(reason, exit_status)

    def spawn_worker(self) -> int:
        """A worker that is told to end before it has handlers of its own must not miss that: signals wait for them."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKED_TO_END)
        try:
            pid: int = super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._started[pid] = time.monotonic()
        return pid

    def kill_worker(self, pid: int, sig: int) -> None:
        if sig in _ASKED_TO_END:
            self._told_to_end.add(pid)
        super().kill_worker(pid, sig)

    def stop(self, graceful: bool = True) -> None:  # noqa: FBT002  # the library's
        """What nobody accepts any more is to be refused at once, not to wait for the last worker and be reset."""
        self._crew.end()
        self._crew.sockets.close()
        super().stop(graceful)

    def reap_workers(self) -> None:
        """Several workers may fail to start at the same time; the second must not interrupt what the first began."""
        try:
            super().reap_workers()
        except HaltServer:
            if not self._crew.ends:
                raise
        finally:
            for pid in self._started.keys() - self.WORKERS.keys():
                self._ended(pid)

    def _ended(self, pid: int) -> None:
        started = self._started.pop(pid)
        if pid in self._told_to_end:
            self._told_to_end.discard(pid)
            return
        pause_seconds = self._back_off.ended(started)
        if pause_seconds and self._crew.has_served:
            _logger.error(
                "a worker ended soon after its start; there is a pause before the next one is started",
                extra={
                    "worker": pid,
                    "lived_seconds": round(time.monotonic() - started, 1),
                    "pause_seconds": pause_seconds,
                },
            )

    def reload(self) -> None:
        """New workers start; the rest is for the loop to see to. The library's would hear no signal until the old ones
        have ended. Those that an earlier reload is still starting make way: its configuration is not wanted any more.
        """
        for pid in self._staying() if self._succession.is_under_way else ():
            if not self._crew.is_serving(self.WORKERS[pid].age):
                self.kill_worker(pid, signal.SIGTERM)
        self._succession.begin(self._staying())
        for _ in range(self.num_workers):
            self.spawn_worker()

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        found: list[int] = super().wait_for_signals(_LOOK_SECONDS if self._succession.is_under_way else timeout)
        return found

    def manage_workers(self) -> None:
        """Called at least once a second."""
        was_under_way = self._succession.is_under_way
        staying = self._staying()
        serving = {pid for pid in staying if self._crew.is_serving(self.WORKERS[pid].age)}
        step = self._succession.look(staying, serving, self.num_workers)
        if was_under_way and not self._succession.is_under_way and not step.ends:
            _logger.error("no new worker could serve; the old ones go on", extra={"workers": len(staying)})
        for pid in step.ends:
            self.kill_worker(pid, signal.SIGTERM)
        if step.missing and self._back_off.may_start:
            for _ in range(step.missing):
                self.spawn_worker()

    def _staying(self) -> list[int]:
        """The workers that have not been told to end, those first that have been started first."""
        return [pid for pid in self.WORKERS if pid not in self._told_to_end]


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
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKED_TO_END)

    def run(self) -> None:
        crew: _Crew = self.wsgi
        for each in self.sockets:  # the arbiter's copies would keep the port open when this worker has closed its own
            each.close()
        self.booted = crew.has_served  # before anybody has served, a failure to start ends everything
        self.notify()
        try:
            crew.serve(self.age, self._beat)
        except Exception as problem:  # noqa: BLE001  # whatever it is, the arbiter starts another worker, or ends
            crew.note_failure(problem)
            sys.exit(1 if crew.has_served else _BOOT_ERROR)

    def _beat(self) -> None:
        self.notify()
        if os.getppid() != self.ppid:
            _logger.error("the supervisor is gone; stopping")
            self.wsgi.end()
            os.kill(os.getpid(), signal.SIGTERM)
            return
        asyncio.get_running_loop().call_later(_HEARTBEAT_SECONDS, self._beat)


class _Log(Logger):  # type: ignore[misc]  # the library has no types
    """Gunicorn's messages go where all others do."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002  # where its configuration would have them
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(logging.INFO)
