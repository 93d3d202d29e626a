"""The app's addresses: its page, the queue, uploads, the stems, and all of a song's as a zip or a stem file."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from separation.apps.server.queue import Queue
from separation.apps.server.safety import Guard
from separation.errors import UserError
from separation.songs.outputs import join
from separation.songs.page import fill_page

LIMIT = 2 << 30
"""Bytes that a song may have."""

STATIC = Path(__file__).with_name("static")


def make_app(queue: Queue, token: str | None = None) -> Starlette:
    """The web application of a queue; with a `token`, for other machines as well."""

    async def page(request: Request) -> Response:
        content = fill_page(queue.songs(), STATIC)
        policy = "default-src 'self' data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        return HTMLResponse(content, headers={"content-security-policy": policy, "cache-control": "no-store"})

    async def state(request: Request) -> Response:
        return JSONResponse({"queue": queue.queue(), "songs": queue.songs()}, headers={"cache-control": "no-store"})

    async def upload(request: Request) -> Response:
        entry = queue.begin(request.query_params.get("name", ""))
        try:
            size = int(request.headers.get("content-length") or 0)
        except ValueError:
            size = 0
        try:
            if size > LIMIT:
                raise TooLargeError
            size = 0
            entry.path.parent.mkdir()
            with entry.path.open("xb") as file:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > LIMIT:
                        raise TooLargeError
                    if entry.state == "cancelled":
                        break
                    file.write(chunk)
        except TooLargeError:
            queue.fail(entry, f"“{entry.name}” is larger than {LIMIT >> 30} GB: cut it into parts first.")
        except ClientDisconnect:
            queue.cancel(entry.key)
            queue.cancel(entry.key)
        except OSError as error:
            queue.fail(entry, f"“{entry.name}” cannot be kept ({error.strerror}): make room on the disk.")
        else:
            queue.finish(entry)
        return JSONResponse(entry.facts())

    async def cancel(request: Request) -> Response:
        queue.cancel(request.path_params["key"])
        return Response(status_code=204)

    async def file(request: Request) -> Response:
        path = request.path_params["path"]
        if path not in _files(queue.songs()):
            raise HTTPException(404, "There is no such stem.")
        return FileResponse(queue.folder / path)

    async def archive(request: Request) -> Response:
        song = asked(request)
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(plain(song), safe='')}.zip"}
        paths = list(stems_of(song).values())
        return StreamingResponse(zipped(paths), media_type="application/zip", headers=headers)

    async def stem_file(request: Request) -> Response:
        song = asked(request)
        folder = Path(tempfile.mkdtemp(prefix="stem-", dir=queue.uploads))
        clean = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        path = folder / f"{plain(song)}.stem.m4a"
        try:
            cover = (queue.folder / unquote(song["cover"])).read_bytes() if "cover" in song else None
            await run_in_threadpool(join, stems_of(song), path, cover)
        except (UserError, OSError) as error:
            await clean()
            raise HTTPException(409, str(error)) from error
        return FileResponse(path, media_type="audio/mp4", filename=path.name, background=clean)

    def asked(request: Request) -> Mapping[str, Any]:
        song = next((song for song in queue.songs() if song["name"] == request.query_params.get("song")), None)
        if song is None:
            raise HTTPException(404, "There is no such song.")
        return song

    def stems_of(song: Mapping[str, Any]) -> dict[str, Path]:
        return {stem["name"]: queue.folder / unquote(stem["audio"]) for stem in song["stems"]}

    routes = [
        Route("/", page),
        Route("/state", state),
        Route("/songs", upload, methods=["POST"]),
        Route("/songs/{key}", cancel, methods=["DELETE"]),
        Route("/zip", archive),
        Route("/stem", stem_file),
        Route("/{path:path}", file),
    ]
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)])


def plain(song: Mapping[str, Any]) -> str:
    """The name of a song as that of a file to take away."""
    return "".join(letter if letter.isalnum() or letter in " -_()" else "_" for letter in song["name"])


class TooLargeError(Exception):
    """More bytes have come than are taken."""


def zipped(paths: list[Path]) -> Iterator[bytes]:
    """A zip of files, uncompressed, piece by piece: nothing is written and little is held."""
    pieces = Pieces()
    with zipfile.ZipFile(pieces, "w", zipfile.ZIP_STORED) as archive:
        for path in paths:
            with path.open("rb") as source, archive.open(zipfile.ZipInfo(path.name), "w", force_zip64=True) as target:
                while block := source.read(1 << 18):
                    target.write(block)
                    yield pieces.take()
            yield pieces.take()
    yield pieces.take()


class Pieces:
    """A file that forgets what has been taken from it."""

    def __init__(self):
        self._waiting = bytearray()

    def write(self, content: bytes) -> int:
        self._waiting += content
        return len(content)

    def flush(self) -> None:
        pass

    def take(self) -> bytes:
        taken, self._waiting = bytes(self._waiting), bytearray()
        return taken


def _files(songs: list[dict[str, Any]]) -> set[str]:
    """What may be asked for: the stems that the page lists, their pictures, and covers."""
    stems = {unquote(stem[kind]) for song in songs for stem in song["stems"] for kind in ("audio", "picture")}
    return stems | {unquote(song["cover"]) for song in songs if "cover" in song}
