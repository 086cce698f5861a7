"""The server of the metrics page, over real sockets."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from kleak.errors import UsageError
from kleak.watch import metrics_server
from kleak.watch.metrics_server import MOST_CONNECTIONS, MetricsServer, parse_address
from kleak.watch.readings import Held
from tests.frontend.watch.test_readings import SIGNALFD, reading

pytest.importorskip("prometheus_client", reason="needs prometheus-client")

QUICK_S = 3.0
"""What is not kept waiting takes far less."""


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0", "*") as server:
        yield server


def page(server: MetricsServer, path: str = "/metrics") -> str:
    url = f"http://127.0.0.1:{server.port}{path}"
    with urllib.request.urlopen(url, timeout=QUICK_S) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=")
        return str(answer.read().decode())


def test_serves_the_latest_reading(server: MetricsServer) -> None:
    assert page(server) == ""
    for count in (37, 38):
        server.metrics.reading = reading(5, {SIGNALFD: Held(count, 8 * count, 0)})
        assert re.search(rf"^kleak_outstanding_objects{{.*}} {count}", page(server), re.MULTILINE)
    with pytest.raises(urllib.error.HTTPError) as raised:
        page(server, "/")
    assert raised.value.code == 404


def test_nobody_listens_after_it() -> None:
    with MetricsServer("127.0.0.1:0", "*") as server:
        pass
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


def test_client_that_goes_away_does_no_harm(
    server: MetricsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert page(server) == ""
    assert capfd.readouterr() == ("", "")


@contextmanager
def slow_client(port: int) -> Iterator[threading.Event]:
    """One that sends a byte of its request now and then. Sets the event when it is closed."""
    closed, stop = threading.Event(), threading.Event()

    def talk() -> None:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n")
            while not stop.wait(0.05):
                try:
                    client.sendall(b"a")
                except OSError:
                    closed.set()
                    return

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield closed
    finally:
        stop.set()
        thread.join()


def test_slow_clients_keep_neither_others_waiting_nor_the_end() -> None:
    with ExitStack() as clients:
        with MetricsServer("127.0.0.1:0", "*") as server:
            closed = [clients.enter_context(slow_client(server.port)) for _ in range(3)]
            time.sleep(0.2)
            assert page(server) == ""
            began = time.monotonic()
        assert time.monotonic() - began < QUICK_S
        assert all(one.wait(QUICK_S) for one in closed)


def test_a_connection_has_a_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "LIMIT_S", 0.5)
    with MetricsServer("127.0.0.1:0", "*") as server, slow_client(server.port) as closed:
        assert closed.wait(10)
        assert page(server) == ""


def test_one_connection_too_many_is_closed_at_once(server: MetricsServer) -> None:
    with ExitStack() as clients:
        for _ in range(MOST_CONNECTIONS):
            client = socket.create_connection(("127.0.0.1", server.port))
            clients.enter_context(client)
        one_more = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
        one_more.settimeout(QUICK_S)
        assert one_more.recv(1) == b""
    give_up = time.monotonic() + QUICK_S
    while True:  # until it has noticed that they are gone
        try:
            assert page(server) == ""
            break
        except OSError:
            assert time.monotonic() < give_up


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("9753", ("127.0.0.1", 9753)),
        (":9753", ("127.0.0.1", 9753)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses(address: str, expected: tuple[str, int]) -> None:
    assert parse_address(address) == expected


@pytest.mark.parametrize("address", ["", "localhost", "1.2.3.4:", "1.2.3.4:70000", "1.2.3.4:-1"])
def test_no_addresses(address: str) -> None:
    with pytest.raises(UsageError, match="is no address"):
        parse_address(address)


def test_port_that_is_taken(server: MetricsServer) -> None:
    with pytest.raises(UsageError, match=f"cannot listen on {server.port}: Address already in use"):
        MetricsServer(str(server.port), "*")


def test_without_the_client_it_names_the_extra() -> None:
    said = subprocess.run(
        [sys.executable, "-c", """
import sys
sys.modules["prometheus_client"] = None  # as where it is not installed
from kleak.errors import UnsupportedError
from kleak.watch.metrics_server import MetricsServer
try:
    MetricsServer("127.0.0.1:0", "*")
except UnsupportedError as error:
    print(error)
"""],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert said.stdout == "--prometheus needs prometheus-client: pip install kleak[prometheus]\n"
