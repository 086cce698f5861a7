"""A page of metrics for Prometheus, served while something else goes on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import TracebackType

from kleak.errors import UsageError

DEFAULT_ADDRESS = "127.0.0.1:9753"
PATH = "/metrics"
_PATIENCE_S = 5.0


class MetricsServer:
    """Serves one page, one request at a time, to whoever can reach the address. Use as a context.

    Nobody is asked who they are: an address beyond the loopback is the caller's decision.
    """

    def __init__(self, address: str, page: Callable[[], str], content_type: str) -> None:
        """Listen at ``address`` ("PORT", "ADDR:PORT" or "[ADDR]:PORT").

        Without ADDR that is the loopback. ``page`` makes the page at each request, in another
        thread. Raises UsageError for what is no address, or where nobody can listen.
        """
        host, port = parse_address(address)
        try:
            self._server = _Server((host, port), _handler(page, content_type))
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
        """End it."""
        self._server.shutdown()
        self._server.server_close()


def parse_address(address: str) -> tuple[str, int]:
    """Host and port of "PORT", ":PORT", "ADDR:PORT" or "[ADDR]:PORT". Raises UsageError."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdigit() and int(port) < 1 << 16):
        raise UsageError(f"{address} is no address: ADDR:PORT, or PORT for the loopback")
    return host or "127.0.0.1", int(port)


class _Server(HTTPServer):
    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # HTTPServer asks the name service for this machine's name, which nobody needs here.
        super(HTTPServer, self).server_bind()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away: standard error is another's."""


def _handler(page: Callable[[], str], content_type: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _PATIENCE_S

        def do_GET(self) -> None:
            if self.path.partition("?")[0] != PATH:
                self.send_error(404, f"only {PATH} is here")
                return
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Log nothing: the terminal is a picture."""

    return Handler
