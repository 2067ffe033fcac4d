"""The page and its answers, by Python's own HTTP server, for this machine alone."""

import base64
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

import numpy as np
from PIL import Image

from mnist_bench.analysis.predict.answers import prepare_image
from mnist_bench.errors import ConfigError, DataError
from mnist_bench.runs.load import TrainedNetwork

HOST = "127.0.0.1"
# Tried first, so that the address can be kept; any that is free otherwise.
PORT = 8008
PAGE = Path(__file__).with_name("page.html")
# The side of a drawing that the page sends, one byte a pixel, and the most that is read of any.
MOST_SIDE = 512
MOST_BYTES = MOST_SIDE * MOST_SIDE
# After which a connection that says nothing is closed.
SILENCE_SECONDS = 30


class Demo(ThreadingHTTPServer):
    """Serves the page of one network on this machine's own address, 127.0.0.1.

    `GET /` is the page, `GET /network` what it shows of the network, and `POST /predict` takes a
    square drawing, light on black, a byte for each pixel. Others than pages of this address are
    refused: a site that has its name point here would be a stranger.
    """

    daemon_threads = True

    def __init__(self, network: TrainedNetwork, port: int | None = None):
        """Take a port: the given one, or 8008, or, if that is taken, any.

        Raises:
            ConfigError: the given one is taken, or not permitted.
        """
        self.network = network
        self.turn = threading.Lock()  # PyTorch has the cores for one drawing at a time
        try:
            super().__init__((HOST, PORT if port is None else port), Handler)
        except OSError as error:
            if port is not None:
                reason = (error.strerror or str(error)).lower()
                raise ConfigError(
                    f"--port {port} cannot be had ({reason}): give another, or none."
                ) from error
            super().__init__((HOST, 0), Handler)

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as http.server would."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/"

    def describe(self) -> dict[str, Any]:
        """Return what the page shows of its network."""
        channels, height, width = self.network.image_shape
        return {
            "model": self.network.config.model.name,
            "dataset": self.network.config.data.name,
            "weights": self.network.when,
            "classes": self.network.class_names,
            "shape": [height, width, channels],
        }

    def answer(self, drawing: bytes) -> dict[str, Any]:
        """Return probabilities, and the pixels that the network saw, base64 of (H, W, C).

        Raises:
            DataError: there is no square in so many bytes, or nothing is drawn in it.
        """
        side = round(len(drawing) ** 0.5)
        if side < 2 or side * side != len(drawing):
            raise DataError(f"{len(drawing)} bytes are not a square of pixels")
        image = Image.frombytes("L", (side, side), drawing)
        if self.network.image_shape[0] != 1:
            image = image.convert("RGB")
        with self.turn:
            seen = prepare_image(self.network, image)
            probabilities = self.network.predict(seen).probabilities[0]
        return {
            "probabilities": [round(float(share), 6) for share in probabilities],
            "seen": base64.b64encode(np.ascontiguousarray(seen).tobytes()).decode(),
        }

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a page that was closed while it was answered."""


class Handler(BaseHTTPRequestHandler):
    server: Demo
    server_version = "mnist-bench"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    timeout = SILENCE_SECONDS

    def do_GET(self) -> None:
        if not self._is_at_home():
            return
        if self.path == "/":
            # Only what stands in the page itself may run, and it may ask nobody else.
            nonce = secrets.token_urlsafe(16)
            page = PAGE.read_text(encoding="utf-8").replace("NONCE", nonce)
            policy = (
                f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
                f"connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                f"frame-ancestors 'none'"
            )
            self._send(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", policy)
        elif self.path == "/network":
            self._send_json(HTTPStatus.OK, self.server.describe())
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")

    def do_POST(self) -> None:
        if not self._is_at_home():
            return
        if self.path != "/predict":
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "The length of the drawing is missing.")
        elif int(length) > MOST_BYTES:
            self._refuse(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"A drawing has at most {MOST_SIDE} x {MOST_SIDE} pixels.",
            )
        else:
            try:
                answer = self.server.answer(self.rfile.read(int(length)))
            except DataError as error:
                self._send_json(HTTPStatus.UNPROCESSABLE_ENTITY, {"error": str(error)})
            else:
                self._send_json(HTTPStatus.OK, answer)

    def _is_at_home(self) -> bool:
        """Refuse whoever has come here by another name, or from another site."""
        port = self.server.server_port
        names = (HOST, "localhost")
        hosts = {*names} if port == 80 else {f"{name}:{port}" for name in names}
        origin = self.headers.get("Origin")
        known = self.headers.get("Host", "").lower() in hosts
        if known and (origin is None or origin.lower() in {f"http://{host}" for host in hosts}):
            return True
        self._refuse(HTTPStatus.FORBIDDEN, f"This page is at {self.server.url} alone.")
        return False

    def _refuse(self, status: HTTPStatus, sentence: str) -> None:
        self.close_connection = True  # what else was sent has not been read
        self._send_json(status, {"error": sentence})

    def _send_json(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str, policy: str = "") -> None:
        self.send_response(status)
        headers = {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Content-Security-Policy": policy or "default-src 'none'",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep the terminal quiet."""
