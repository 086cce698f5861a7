"""The server of the metrics page, over real sockets."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request

import pytest

from kleak.errors import UsageError
from kleak.watch.metrics_server import MetricsServer, parse_address


def test_serves_the_page_as_it_is_now() -> None:
    pages = iter(["one", "two é"])
    with MetricsServer("127.0.0.1:0", lambda: next(pages), "text/x-test") as server:
        for expected in ("one", "two é"):
            with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
                assert answer.read().decode() == expected
                assert answer.headers["Content-Type"] == "text/x-test"
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/")
        assert raised.value.code == 404
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.port))


def test_client_that_goes_away_does_no_harm(capfd: pytest.CaptureFixture[str]) -> None:
    with MetricsServer("127.0.0.1:0", lambda: "x" * 10_000_000, "text/plain") as server:
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            assert len(answer.read()) == 10_000_000
    assert capfd.readouterr() == ("", "")


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


def test_port_that_is_taken() -> None:
    with (
        MetricsServer("127.0.0.1:0", str, "text/plain") as server,
        pytest.raises(UsageError, match=f"cannot listen on {server.port}: Address already in use"),
    ):
        MetricsServer(str(server.port), str, "text/plain")
