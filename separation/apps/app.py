"""The command `python app.py`: serve the page and its API, and open the page in a browser."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import threading
import webbrowser
from pathlib import Path
from urllib.parse import quote

from separation.audio.formats import FORMATS
from separation.errors import UserError
from separation.files import user_path
from separation.inference.device import ENGINE_HELP, ENGINES, NETWORK_HELP
from separation.runtime import DEVICE_HELP

TOKEN = "SEPARATION_TOKEN"
"""Environment variable with the user's own token. If it is set, this machine needs the token as well."""

PORTS = 20
"""Number of ports to try, from the chosen one up."""

EVERYWHERE = ("0.0.0.0", "::")


def main() -> None:
    options = parse_arguments()
    try:
        import uvicorn

        from separation.apps.job_store import Choices, JobStore
        from separation.apps.server import is_loopback, make_app
    except ImportError as error:
        raise UserError(f"the app needs {error.name}: run `pip install '.[app]'`.", "missing_package") from error
    listener = listen(options.host, options.port)
    stems = options.stems or ("all" if {*(options.weights or ())} <= {"fast", "best"} else "")
    default = {"stems": stems, "format": options.format, "quality": options.quality}
    command = {name: getattr(options, name) for name in ("weights", "device", "engine", "network")}
    choices = Choices.find(command, default)
    store = JobStore(options.output, choices)
    token = os.environ.get(TOKEN) or (None if is_loopback(options.host) else secrets.token_urlsafe(16))
    address = address_of(options.host, listener.getsockname()[1]) + (f"?token={quote(token, safe='')}" if token else "")
    print(f"Drop songs on {address}\nStems go to {store.folder.resolve()}. Ctrl-C to stop.")
    print(f"licence of the weights: {choices.licence}", flush=True)
    if token:
        print("Anyone with this address, token included, can separate songs here and hear yours.", flush=True)
    if not options.no_browser:
        threading.Timer(0.5, webbrowser.open, [address]).start()
    config = uvicorn.Config(make_app(store, token), log_level="warning", timeout_graceful_shutdown=1)
    try:
        uvicorn.Server(config).run(sockets=[listener])
    finally:
        store.close()


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Separate songs in a browser, on this machine.",
        epilog=f"Other machines need a token. It is in the address that is printed; set {TOKEN} to choose it, and to "
        "ask for it behind a proxy on this machine as well.",
    )
    add = parser.add_argument
    add("--stems", type=str.lower, help="`two`, `all` or the name of a stem (default: all, or what --weights give)")
    add("--format", type=str.lower, choices=FORMATS, default="wav", help="of the stems (default: %(default)s)")
    add("--quality", choices=("fast", "best"), default="fast", help="best takes 2 to 4 times as long (default: fast)")
    add(
        "--output",
        type=user_path,
        default=Path("outputs"),
        metavar="FOLDER",
        help="of the stems (default: %(default)s)",
    )
    add("--weights", action="append", metavar="FILE", help="`fast`, `best`, `free`, `live` or a file (default: fast)")
    add("--device", default="auto", help=DEVICE_HELP)
    add("--engine", choices=("auto", *ENGINES), default="auto", help=ENGINE_HELP)
    add("--network", metavar="PACKAGE.MODULE:CLASS", help=NETWORK_HELP)
    add("--port", type=int, default=8000, help="of the page, or the next free one (default: %(default)s)")
    help_host = "address to listen on; 0.0.0.0 lets in phones and others on the network (default: %(default)s)"
    add("--host", default="127.0.0.1", help=help_host)
    add("--no-browser", action="store_true", help="do not open the page")
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    """A socket listening on the port, or on the next free one. Raises `UserError` if there is none."""
    if not 0 <= port < 65536:
        raise UserError(f"--port must lie between 0 and 65535, not {port}.", "bad_port")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--host {host}: no such host or address here.", "bad_host") from error
    reason = ""
    for candidate in range(port, min(port + (PORTS if port else 1), 65536)):
        for family, _, _, _, place in found:
            try:
                # In CPython 3.10 to 3.13 this sets SO_REUSEADDR, except on Windows, where it would share the port.
                both = host == "::" and socket.has_dualstack_ipv6()
                return socket.create_server((place[0], candidate, *place[2:]), family=family, dualstack_ipv6=both)
            except OSError as error:
                reason = os.strerror(error.errno) if error.errno else str(error)
    raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}).", "cannot_listen")


def address_of(host: str, port: int) -> str:
    """The URL of the app for browsers; on all interfaces, with the address that others in the network see."""
    if host in EVERYWHERE:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect(("192.0.2.1", 9))  # sends nothing: this only looks up the route
                host = probe.getsockname()[0]
        except OSError:
            host = socket.gethostname()
    host = host.replace("%", "%25")  # the zone of a link-local address
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
