"""Build the folder that separates songs in a browser: page, ONNX networks, and the npm files that the page needs."""

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
from separation.errors import UserError, writing
from separation.files import write_file
from separation.inference.weights import pretrained
from separation.songs.page import fill_page

STATIC = Path(__file__).with_name("browser_page")
PACKAGES: list[dict[str, Any]] = json.loads((STATIC / "packages.json").read_text(encoding="utf-8"))
"""npm packages: each with its version, the hash of that version, and the files to extract."""

NETWORKS = ("vocals", "all")
"""The shipped weights that the page offers."""


def build(folder: Path) -> int:
    """Fill `folder` for any static server, and return its size in bytes. npm files that already exist are kept.

    Raises `UserError` if the folder holds something else, if a package cannot be fetched or has the wrong hash, or if
    ONNX cannot be written.
    """
    page, index = fill_page([], STATIC), folder / "index.html"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / "worker.js").is_file():
            raise UserError(f"{folder} holds something else: name an empty folder.")
        for script in STATIC.glob("*.js"):
            if script.name != "more.js":  # embedded in the page
                write_file(folder / script.name, script.read_bytes())
        fill_vendor(folder / "vendor")
    for name in NETWORKS:
        facts = export(pretrained(name), folder / f"{name}.onnx")
        said = {key: json.loads(text) for key, text in facts.items()}
        write_file(folder / f"{name}.json", json.dumps(said, indent=2))
    write_file(index, page)
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def fill_vendor(vendor: Path) -> None:
    """Put the packages' files into `vendor`, unless they exist already. Raises `UserError` as `build` does."""
    wanted, record = json.dumps(PACKAGES, indent=2), vendor / "packages.json"
    names = [name for package in PACKAGES for name in package["files"]]
    if record.is_file() and record.read_text(encoding="utf-8") == wanted and all((vendor / n).is_file() for n in names):
        return
    vendor.mkdir(exist_ok=True)
    record.unlink(missing_ok=True)  # so that everything is fetched again after a failure
    for package in PACKAGES:
        take(package, vendor)
    write_file(record, wanted)


def take(package: Mapping[str, Any], vendor: Path) -> None:
    """Fetch a package with npm, verify it, and put its files into `vendor`. Raises `UserError` as `build` does."""
    name = f"{package['name']}@{package['version']}"
    npm = shutil.which("npm")  # on Windows this is npm.cmd, which is only found by its full name
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
                assert member is not None  # the hash guarantees that the package has this file
                text = member.read()
                if target == "fft.js":  # a CommonJS module
                    text = b"const module = {};\n" + text + b"\nexport default module.exports;\n"
                write_file(vendor / target, text)


def check(content: bytes, package: Mapping[str, Any]) -> None:
    """Raise `UserError` unless this is the pinned package, byte for byte."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != package["integrity"]:
        raise UserError(f"npm gave another file for {package['name']}@{package['version']} than the pinned one.")


class Handler(SimpleHTTPRequestHandler):
    """Serves pages cross-origin isolated, as browsers require for pages that use several threads."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".wasm": "application/wasm"}

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        """Do not log requests."""


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of `folder` for this machine only; port 0 selects a free one. Raises `UserError` if it is unusable."""
    try:
        return ThreadingHTTPServer(("127.0.0.1", port), partial(Handler, directory=str(folder)))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "ports end at 65535"
        raise UserError(
            f"port {port} cannot be used ({reason}): choose another with --serve.", "cannot_listen"
        ) from error
