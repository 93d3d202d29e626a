"""The folder that separates songs in a browser: page, networks as ONNX, and what the page needs of npm's packages."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from separation.apps.export import export
from separation.errors import UserError
from separation.files import replacing
from separation.inference.weights import pretrained
from separation.songs.page import fill_page

STATIC = Path(__file__).with_name("browser_page")
PACKAGES: list[dict[str, Any]] = json.loads((STATIC / "packages.json").read_text(encoding="utf-8"))
"""Packages of npm: each with its version, the hash of that version, and the files that are taken out of it."""

NETWORKS = ("vocals", "all")
"""The shipped weights that the page offers."""


def build(folder: Path) -> int:
    """Make `folder` what any static server can serve, and give its bytes. What is there already of npm's is kept.

    Raises `UserError` when the folder is another's, a package cannot be had or is not the one it should be, or ONNX
    cannot be written.
    """
    page, index = fill_page([], STATIC), folder / "index.html"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: name another folder.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "worker.js").is_file():
        raise UserError(f"{folder} holds something else: name an empty folder.")
    folder.mkdir(parents=True, exist_ok=True)
    for script in STATIC.glob("*.js"):
        if script.name != "more.js":  # that one is in the page
            shutil.copyfile(script, folder / script.name)
    fill_vendor(folder / "vendor")
    for name in NETWORKS:
        facts = export(pretrained(name), folder / f"{name}.onnx")
        said = {key: json.loads(text) for key, text in facts.items()} | {"states": states_of(folder / f"{name}.onnx")}
        write(folder / f"{name}.json", json.dumps(said, indent=2))
    write(index, page)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill_vendor(vendor: Path) -> None:
    """Put the packages' files into `vendor`, unless they are there. Raises `UserError` as `build` does."""
    wanted, record = json.dumps(PACKAGES, indent=2), vendor / "packages.json"
    names = [name for package in PACKAGES for name in package["files"]]
    if record.is_file() and record.read_text(encoding="utf-8") == wanted and all((vendor / n).is_file() for n in names):
        return
    vendor.mkdir(exist_ok=True)
    record.unlink(missing_ok=True)  # so that after a failure everything is fetched again
    for package in PACKAGES:
        take(package, vendor)
    write(record, wanted)


def take(package: Mapping[str, Any], vendor: Path) -> None:
    """Fetch a package by npm, check it, and put its files into `vendor`. Raises `UserError` as `build` does."""
    name = f"{package['name']}@{package['version']}"
    npm = shutil.which("npm")  # on Windows it is npm.cmd, which is found by its whole name only
    if npm is None:
        raise UserError(f"npm, which fetches {name}, is not installed: install Node.js.")
    with tempfile.TemporaryDirectory() as place:
        try:
            subprocess.run([npm, "pack", name, "--pack-destination", place], check=True, capture_output=True, text=True)
            content = next(Path(place).iterdir()).read_bytes()
        except subprocess.CalledProcessError as error:
            reason = (error.stderr or "no reason given").strip().splitlines()[-1]
            raise UserError(f"npm cannot fetch {name}: {reason}") from error
        check(content, package)
        path = Path(place) / "package.tgz"
        path.write_bytes(content)
        with tarfile.open(path) as archive:
            for target, source in package["files"].items():
                member = archive.extractfile(source)
                assert member is not None  # the package is, byte for byte, the one that has this file
                text = member.read()
                if target == "fft.js":  # of the older kind of modules
                    text = b"const module = {};\n" + text + b"\nexport default module.exports;\n"
                with replacing(vendor / target) as partial:
                    partial.write_bytes(text)


def check(content: bytes, package: Mapping[str, Any]) -> None:
    """Raise `UserError` unless this is the package that was chosen, byte for byte."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package["integrity"]:
        raise UserError(f"what npm gives for {package['name']}@{package['version']} is another file than it was.")


def states_of(path: Path) -> dict[str, list[int]]:
    """The names and shapes of the states that a step of a network takes."""
    import onnx

    inputs = onnx.load(str(path)).graph.input[1:]
    return {state.name: [axis.dim_value for axis in state.type.tensor_type.shape.dim] for state in inputs}


def write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="")


class Handler(SimpleHTTPRequestHandler):
    """Isolates its pages, as browsers ask of those that use several threads."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Single requests are not logged."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` for this machine alone; port 0 stands for a free one. Raises `UserError`."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "ports end at 65535"
        raise UserError(
            f"port {port} cannot be used ({reason}): choose another by --serve.", "cannot_listen"
        ) from error
