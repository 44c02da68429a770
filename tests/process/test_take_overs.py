"""Only one gateway takes over from another: two of them would both serve the port, and not know of each other."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.process.conftest import Serving, serving
from tests.process.test_workers import QUIET, SERVE, is_listening

BUSY = "Another gateway is taking over"


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Serving]:
    """Once it is told to end it stays for long."""
    with serving(tmp_path, *SERVE, **QUIET, SHUTDOWN_DELAY_SECONDS="60") as gateway:
        yield gateway


@contextmanager
def taking_over(old: Serving) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end if it still runs."""
    port = old.url.rpartition(":")[2]
    environment = {**old.environment, "LLMGATEWAY_PORT": port, "SHUTDOWN_DELAY_SECONDS": "0"}
    process = subprocess.Popen([*SERVE, "--take-over"], env=environment, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def has_sockets_of(old: Serving) -> Iterator[socket.socket]:
    """Somebody who takes over, and does not serve as yet."""
    door = str(Path(old.environment["LLMGATEWAY_DATA_DIR"]) / f"handover-{old.url.rpartition(':')[2]}.sock")
    descriptors: list[int] = []
    while not descriptors:  # a moment after an earlier one has gone
        successor = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with closing(successor):
            successor.connect(door)
            _, descriptors, _, _ = socket.recv_fds(successor, 65536, 64)
            if descriptors:
                for each in descriptors:
                    socket.close(each)
                yield successor


def refusal(old: Serving) -> str:
    """What the next one that would take over is told."""
    with taking_over(old) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    return told


def test_while_one_takes_over_no_other_can(old: Serving) -> None:
    with has_sockets_of(old):
        assert BUSY in refusal(old)
    with has_sockets_of(old) as successor:  # the first one has failed
        successor.sendall(b"ready")
        assert BUSY in refusal(old)
    assert old.process.poll() is None


def test_of_two_that_take_over_at_once_one_is_left(tmp_path: Path) -> None:
    with serving(tmp_path, *SERVE, **QUIET, SHUTDOWN_DELAY_SECONDS="3") as old, ExitStack() as stack:
        port = int(old.url.rpartition(":")[2])
        successors = [stack.enter_context(taking_over(old)) for _ in range(2)]
        assert old.process.wait(60) == 0
        until(lambda: any(each.poll() is not None for each in successors))
        (left,) = (each for each in successors if each.poll() is None)
        assert is_listening(port)
        left.terminate()
        assert left.wait(60) == 0
        assert not is_listening(port)


def take_over_from(old: Serving) -> None:
    """Another one does, serves, and ends."""
    with taking_over(old) as successor:
        assert old.process.wait(60) == 0
        until(lambda: is_listening(int(old.url.rpartition(":")[2])))
        until(door_of(old).exists)
        successor.terminate()
        assert successor.wait(60) == 0


def door_of(gateway: Serving) -> Path:
    return Path(gateway.environment["LLMGATEWAY_DATA_DIR"]) / f"handover-{gateway.url.rpartition(':')[2]}.sock"


@pytest.mark.parametrize("still_runs", [True, False])
def test_a_second_gateway_in_the_data_directory_is_not_in_the_way(tmp_path: Path, still_runs: bool) -> None:
    """It has another port. It took the first one's place, and nobody's when it ended."""
    with serving(tmp_path, *SERVE, **QUIET) as old, serving(tmp_path, *SERVE, **QUIET) as second:
        if not still_runs:
            assert second.stop() == 0
        take_over_from(old)


@pytest.mark.parametrize("a_killed_one_has_left_its_door", [False, True])
def test_a_gateway_of_a_version_whose_door_had_no_port_is_taken_over_from(
    tmp_path: Path, a_killed_one_has_left_its_door: bool
) -> None:
    """Also when an upgrade was killed, and the version before was started in its place."""
    with serving(tmp_path, *SERVE, **QUIET) as old:
        door = door_of(old)
        until(door.exists)
        door.rename(door.with_name("handover.sock"))
        if a_killed_one_has_left_its_door:
            with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)) as killed:
                killed.bind(str(door))
        take_over_from(old)
