"""A page of metrics for Prometheus, served by its own client while something else goes on."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kleak.errors import UnsupportedError, UsageError

if TYPE_CHECKING:
    from kleak.watch.prometheus import Metrics

DEFAULT_ADDRESS = "127.0.0.1:9753"
PATH = "/metrics"
LIMIT_S = 5.0
"""How long a connection may last, whatever its client does."""
MOST_CONNECTIONS = 16
"""Connections at a time; one more is closed at once."""


class MetricsServer:
    """Serves ``metrics`` to whoever can reach the address. Use as a context.

    Each client has a thread: one that is slow keeps neither others waiting, nor the end. Nobody
    is asked who they are: an address beyond the loopback is the caller's decision.
    """

    def __init__(self, address: str, scope: str) -> None:
        """Listen at ``address`` ("PORT", "ADDR:PORT" or "[ADDR]:PORT").

        Without ADDR that is the loopback. ``scope`` names what is watched. Raises UsageError for
        what is no address, or where nobody can listen; UnsupportedError without
        prometheus-client.
        """
        host, port = parse_address(address)
        self.metrics = _metrics(scope)
        try:
            self._server = _Server((host, port), _handler(self.metrics))
        except OSError as error:
            raise UsageError(f"cannot listen on {address}: {error.strerror or error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> MetricsServer:
        """Begin to serve."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it, and the connections that there are."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_older_than(0.0)


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "PORT", ":PORT", "ADDR:PORT" or "[ADDR]:PORT". Raises UsageError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"{address} is no address: ADDR:PORT, or PORT for the loopback")
    return host or "127.0.0.1", int(port)


class _Server(ThreadingHTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self._since: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer asks the name service for this machine's name, which nobody needs here.
        socketserver.TCPServer.server_bind(self)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._since) >= MOST_CONNECTIONS:
                return False
            self._since[request] = time.monotonic()
        return True

    def service_actions(self) -> None:
        # Called twice a second. A timeout of the socket would not do: a byte now and then, and
        # it never comes.
        self.close_older_than(LIMIT_S)

    def close_older_than(self, age_s: float) -> None:
        now = time.monotonic()
        with self._lock:
            for connection, since in self._since.items():
                if now - since >= age_s:
                    with suppress(OSError):  # the client has gone
                        connection.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away: standard error is another's."""


def _metrics(scope: str) -> Metrics:
    try:
        from kleak.watch.prometheus import Metrics
    except ImportError as error:
        raise UnsupportedError(
            "--prometheus needs prometheus-client: pip install kleak[prometheus]"
        ) from error
    return Metrics(scope)


def _handler(metrics: Metrics) -> type[BaseHTTPRequestHandler]:
    from prometheus_client import CollectorRegistry, MetricsHandler

    only = CollectorRegistry()
    only.register(metrics)

    class Handler(MetricsHandler):
        registry = only

        def do_GET(self) -> None:  # noqa: N802
            if self.path.partition("?")[0] != PATH:
                self.send_error(404, f"only {PATH} is here")
                return
            super().do_GET()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Log nothing: the terminal is a picture."""

    return Handler
