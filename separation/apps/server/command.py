"""What `python app.py` does: load the weights, serve the page, and open it in the browser."""

from __future__ import annotations

import argparse
import secrets
import socket
import threading
import webbrowser

from separation.audio.formats import FORMATS
from separation.errors import UserError
from separation.files import user_path
from separation.inference.weights import find_weights
from separation.songs.batch import Settings
from separation.songs.command import sort_out
from separation.songs.outputs import StemFormat


def main() -> None:
    options = parse_arguments()
    try:
        import uvicorn

        from separation.apps.server.queue import Queue
        from separation.apps.server.safety import LOOPBACK
        from separation.apps.server.server import make_app
    except ImportError as error:
        raise UserError(f"the app needs {error.name}: run `pip install '.[app]'`.") from error
    stems = tuple(sort_out([options.stems])[0])
    settings = Settings(
        find_weights(options.weights or ["fast"], stems), options.device, stems, StemFormat(options.format)
    )
    settings.separator()
    queue = Queue(user_path(options.output), settings)
    listener = listen(options.host, options.port)
    port = listener.getsockname()[1]
    token = None if options.host in LOOPBACK else secrets.token_urlsafe(16)
    address = f"http://{'127.0.0.1' if token is None else address_of(options.host)}:{port}/"
    address += f"?token={token}" if token else ""
    print(f"Drop songs on {address}\nStems go to {queue.folder.resolve()}. Ctrl-C ends.", flush=True)
    if token:
        print("Whoever has this address, token and all, can separate songs here and hear yours.", flush=True)
    if not options.no_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(make_app(queue, token), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Separate songs in a browser, on this machine.")
    parser.add_argument("--stems", default="all", help="`two`, `all` or the name of a stem (default: %(default)s)")
    parser.add_argument("--format", choices=FORMATS, default="wav", help="of the stems (default: %(default)s)")
    parser.add_argument("--output", default="outputs", metavar="FOLDER", help="of the stems (default: %(default)s)")
    parser.add_argument("--weights", action="append", metavar="FILE", help="`fast`, `best` or a file (default: fast)")
    parser.add_argument("--device", default="auto", help="where to separate (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="of the page, or the next free one (default: %(default)s)"
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address to listen at; 0.0.0.0 lets phones and others in the network in, with a token (default: "
        "%(default)s, this machine alone)",
    )
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    """A socket at the port, or at one of the next twenty. Raises `UserError` when there is none."""
    if not 0 <= port < 65536:
        raise UserError(f"--port must lie between 0 and 65535, not {port}.")
    reason: OSError | None = None
    for candidate in range(port, min(port + 20, 65536)):
        try:
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, candidate))
            listener.listen()  # whoever comes while the server starts waits
            return listener
        except OSError as error:
            listener.close()
            reason = error
    raise UserError(f"--host {host} --port {port}: nothing can listen there ({reason.strerror}).") from reason


def address_of(host: str) -> str:
    """How others in the network reach this machine."""
    if host not in ("0.0.0.0", "::"):
        return host
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: this only asks which way it would go
            return probe.getsockname()[0]
    except OSError:
        return socket.gethostname()
