"""The sockets that a gateway listens on, and handing them over to the gateway that comes after it.

A socket that is handed over is never closed in between, so no connection in its queue is lost. Sharing the port
(SO_REUSEPORT) could not promise that: what waits in the queue of a socket that is closed is reset.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from proxy.domain.errors import InvalidValue
from proxy.settings import Settings

BACKLOG: Final = 1024
_OLD_DOOR = "handover.sock"  # until 2026-11-30 all gateways of a data directory had the same
_READY = b"ready"
_NONE = b"[]"  # of the sockets, for those have been given to another one
_LONGEST_ADDRESS = 100  # of a Unix socket: the kernel's limit is 108
_MOST_SOCKETS = 64
_WAIT_SECONDS = 10.0
_PORT_SETTINGS: Final = {
    "api": "LLMGATEWAY_PORT (--port)",
    "admin": "LLMGATEWAY_ADMIN_PORT",
    "metrics": "LLMGATEWAY_METRICS_PORT",
}


@dataclass(frozen=True, slots=True)
class Listening:
    """Bound sockets by what is served on them: `api`, and `admin` and `metrics` where they have ports of their own.

    `predecessor` is the connection to the gateway that they were taken over from; it is to be told when to stop.
    """

    sockets: Mapping[str, list[socket.socket]]
    predecessor: socket.socket | None = None

    def release_predecessor(self) -> None:
        """We serve: the gateway before us finishes what it has, and ends. Doing it twice does nothing."""
        if self.predecessor is not None:
            with suppress(OSError):
                self.predecessor.sendall(_READY)
            self.predecessor.close()

    def close(self) -> None:
        for sockets in self.sockets.values():
            for each in sockets:
                each.close()


def listening(settings: Settings, *, take_over: bool = False) -> Listening:
    """Raises InvalidValue for an address that cannot be had, or when there is nobody to take over from."""
    ports = {
        "api": settings.llmgateway_port,
        "admin": settings.llmgateway_admin_port,
        "metrics": settings.llmgateway_metrics_port,
    }
    wanted = {name: port for name, port in ports.items() if port is not None}
    if take_over:
        return _taken_over(_doors(settings), wanted)
    return Listening({name: _bound_for(name, settings.llmgateway_host, port) for name, port in wanted.items()})


def _bound_for(name: str, host: str, port: int) -> list[socket.socket]:
    """Says which setting is to be changed where that cannot be."""
    try:
        return bound(host, port)
    except socket.gaierror as problem:
        fix = "LLMGATEWAY_HOST (--host) must be an address or a name of this machine"
        raise InvalidValue(f"Cannot listen on {host}: {problem.strerror}. {fix}.") from None
    except OSError as problem:
        is_host = problem.errno == errno.EADDRNOTAVAIL
        fix = (
            "LLMGATEWAY_HOST (--host) to an address of this machine"
            if is_host
            else f"{_PORT_SETTINGS[name]} to another"
        )
        raise InvalidValue(f"Cannot listen on {host}:{port}: {problem.strerror}. Set {fix}.") from None


def handover_path(settings: Settings, listening_on: Listening) -> Path:
    """Where a gateway may be asked for its sockets. One with another port may be at work on the same data."""
    port = listening_on.sockets["api"][0].getsockname()[1]
    return Path(settings.llmgateway_data_dir) / f"handover-{port}.sock"


def _doors(settings: Settings) -> list[Path]:
    """Of the gateway that has the configured port; for port 0 of any. One of an older version may be without a port."""
    directory, port = Path(settings.llmgateway_data_dir), settings.llmgateway_port
    own = directory / f"handover-{port}.sock"
    doors = [own] if port else sorted(directory.glob("handover-*.sock"))
    return [door for door in (*doors, directory / _OLD_DOOR) if door.exists()] or [own]


def unix_address(path: Path) -> str:
    """An address for that path, also where it is too long for one. Its directory stays open then."""
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        return str(path)
    return f"/proc/self/fd/{os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)}/{path.name}"


def bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of the host; families that this machine has not are left out, as asyncio does."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    for family, address in dict.fromkeys((each[0], each[4]) for each in found):
        one = socket.socket(family, socket.SOCK_STREAM)
        try:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            one.listen(BACKLOG)
        except OSError as problem:
            one.close()
            if problem.errno == errno.EADDRNOTAVAIL and len(found) > 1:
                continue
            for other in sockets:
                other.close()
            raise
        one.setblocking(False)
        sockets.append(one)
    if not sockets:
        raise OSError(errno.EADDRNOTAVAIL, f"no address of {host} is this machine's")
    return sockets


def _taken_over(doors: Sequence[Path], wanted: Mapping[str, int]) -> Listening:
    path, predecessor = _knocked_at(doors)
    try:
        message, descriptors, _, _ = socket.recv_fds(predecessor, 65536, _MOST_SOCKETS)
        names = json.loads(message)
    except (OSError, ValueError) as problem:
        predecessor.close()
        raise _nobody_at(path, problem) from None
    if not names:
        predecessor.close()
        raise InvalidValue(f"Another gateway is taking over from the one at {path}: only one can.")
    sockets: dict[str, list[socket.socket]] = {}
    for name, descriptor in zip(names, descriptors, strict=True):
        sockets.setdefault(name, []).append(socket.socket(fileno=descriptor))
    taken = Listening(sockets, predecessor)
    _check_ports(taken, wanted)
    return taken


def _knocked_at(doors: Sequence[Path]) -> tuple[Path, socket.socket]:
    """The first one that is answered: a gateway that was killed has left its door behind."""
    for path in doors:
        predecessor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        predecessor.settimeout(_WAIT_SECONDS)
        try:
            predecessor.connect(unix_address(path))
        except OSError as problem:
            predecessor.close()
            if path == doors[-1]:
                raise _nobody_at(doors[0], problem) from None
        else:
            return path, predecessor
    raise AssertionError("there is always a door")


def _nobody_at(path: Path, problem: Exception) -> InvalidValue:
    return InvalidValue(f"No running gateway to take over from at {path} ({problem}).")


def _check_ports(taken: Listening, wanted: Mapping[str, int]) -> None:
    """A port that is asked for must be the one that is taken over; 0 is any."""
    had = {name: sockets[0].getsockname()[1] for name, sockets in taken.sockets.items()}
    for name in had.keys() | wanted.keys():
        if name not in had or name not in wanted or wanted[name] not in (0, had[name]):
            raise InvalidValue(
                f"The running gateway's port for '{name}' is {had.get(name)}, and {wanted.get(name)} is configured: "
                "a take-over changes no ports."
            )


class Handover:
    """Gives the sockets to whoever asks for them at `path`, and ends this process when that one serves.

    To one at a time, and to nobody after that one serves: two that have them would not know of each other. In threads,
    for it must do so in a supervisor, too, which has no event loop. Until `open` it is the gateway before this one that
    is found at `path`: if this one fails to start, that one can still be taken over from.
    """

    def __init__(self, path: Path, listening_on: Listening) -> None:
        self._path = path
        self._maker = os.getpid()
        self._closed_path = path.with_name(f"{path.name}.{self._maker}")
        self._listening = listening_on
        self._has_successor = False
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._closed_path.unlink(missing_ok=True)
        self._door.bind(unix_address(self._closed_path))
        self._closed_path.chmod(0o600)
        self._inode = self._closed_path.stat().st_ino
        self._door.listen()
        threading.Thread(target=self._serve, name="handover", daemon=True).start()

    def open(self) -> None:
        """We serve. Also from a process that was forked off; doing it twice does nothing."""
        with suppress(FileNotFoundError):
            self._closed_path.replace(self._path)

    def close(self) -> None:
        """Nobody can ask any more. The path is left alone if it is already that of the gateway after us.

        A worker that ends leaves all as it is: the door is its parent's.
        """
        if os.getpid() != self._maker:
            self._door.close()
            return
        with suppress(OSError):
            self._closed_path.unlink(missing_ok=True)
            if self._path.exists() and self._path.stat().st_ino == self._inode:
                self._path.unlink()
            self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def forget(self) -> None:
        """In a process that was forked off: the door is the parent's."""
        self._door.close()

    def _serve(self) -> None:
        while True:
            try:
                successor, _ = self._door.accept()
            except OSError:
                return
            if self._has_successor:
                with successor, suppress(OSError):
                    successor.sendall(_NONE)
            else:
                self._has_successor = True
                threading.Thread(target=self._hand_over, args=(successor,), name="successor", daemon=True).start()

    def _hand_over(self, successor: socket.socket) -> None:
        """A successor that could not start says nothing: then we go on, and another one may come."""
        with successor, suppress(OSError):
            self._give_sockets(successor)
            if successor.recv(len(_READY)) == _READY:
                os.kill(os.getpid(), signal.SIGTERM)
                return
        self._has_successor = False

    def _give_sockets(self, successor: socket.socket) -> None:
        given = [(name, each.fileno()) for name, sockets in self._listening.sockets.items() for each in sockets]
        names = json.dumps([name for name, _ in given]).encode()
        socket.send_fds(successor, [names], [descriptor for _, descriptor in given])
