"""The app over HTTP: its page, and the API that the page uses. `app_page/openapi.json` describes the API."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import quote, urlsplit

from starlette import responses
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import separation
from separation.apps.job_store import STATES, JobStore, StoredJob, song_id
from separation.errors import UserError
from separation.files import portable_name
from separation.songs.outputs import check_stem_file
from separation.songs.page import fill_page
from separation.stems import FOUR

SONG_BYTES = 2 << 30
"""Maximum size of a song in bytes."""

BLOCK = 1 << 20
"""Bytes of a file held in memory at a time."""

PAGE = Path(__file__).with_name("app_page")

STATUS = {"queue_full": 429, "too_large": 413, "no_room": 507, "file_gone": 404}
STATUS |= dict.fromkeys(("deleted", "wrong_stems", "bad_page", "foreign_page"), 409)
"""HTTP status of a `UserError`, by its code; 400 for the others."""

MEDIA_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".mp3": "audio/mpeg"}
MEDIA_TYPES |= {".m4a": "audio/mp4", ".png": "image/png", ".jpg": "image/jpeg"}
MEDIA_TYPES |= {".mp4": "video/mp4", ".mov": "video/quicktime", ".mkv": "video/x-matroska", ".webm": "video/webm"}

POLICY = (
    "default-src 'none'; script-src 'sha256-{}'; style-src 'unsafe-inline'; connect-src 'self' blob:; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Content-Security-Policy of the page, which allows only the script with this hash."""

HEADERS = {
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""Headers of every response that does not set them itself."""


def make_app(store: JobStore, token: str | None = None) -> Starlette:
    """The web application of a job store. With a `token` it serves any machine that has it, else only this one."""

    def asked_job(request: Request) -> StoredJob:
        job = store.jobs.get(request.path_params["job"])
        if job is None:
            raise HTTPException(404, "There is no such job.")
        return job

    def asked_song(request: Request) -> Mapping[str, Any]:
        for song in store.page.songs():
            if song_id(song["name"]) == request.path_params["song"]:
                return song
        raise HTTPException(404, "There is no such song.")

    async def page(request: Request) -> Response:
        content = fill_page([public_song(song) for song in store.page.songs()], PAGE)
        script = content.rpartition("<script>")[2].partition("</script>")[0]
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return responses.HTMLResponse(content, headers={"content-security-policy": POLICY.format(digest)})

    async def describe(request: Request) -> Response:
        return answer(describe_api(store, token))

    async def list_jobs(request: Request) -> Response:
        states = request.query_params.getlist("state") or STATES
        if unknown := set(states) - {*STATES}:
            raise UserError(f"there is no state {unknown.pop()}: choose among {', '.join(STATES)}.", "unknown_state")
        with store.changed:
            return answer([public_job(job) for job in store.jobs.values() if job.state in states])

    async def create_job(request: Request) -> Response:
        size = int(request.headers.get("content-length", 0))  # the server has checked that it is a number
        options = {key: value for key in store.choices.values if (value := request.query_params.get(key))}
        job = None
        try:
            if size > SONG_BYTES:
                raise UserError(f"a song may be {SONG_BYTES >> 30} GB at most: cut it first.", "too_large")
            job = store.receive(request.query_params.get("name", ""), options, size)
            await receive_song(request, job, size)
            await run_in_threadpool(store.check, job)
        except BaseException as error:
            if job:
                with suppress(KeyError):
                    store.delete(job.id)
            elif isinstance(error, UserError) and size <= SONG_BYTES:
                async for _ in request.stream():  # a client that is cut off while sending never sees the response
                    pass
            raise
        store.start(job)
        return answer(public_job(job), 202, location=f"jobs/{job.id}")

    async def show_job(request: Request) -> Response:
        return answer(public_job(asked_job(request)))

    async def delete_job(request: Request) -> Response:
        await run_in_threadpool(store.delete, asked_job(request).id)
        return Response(status_code=204)

    async def job_file(request: Request) -> Response:
        job = asked_job(request)
        if job.kind != "stem_file" or job.state != "done":
            raise HTTPException(409, "This job has written no stem file.")
        if not job.path.is_file():
            raise UserError("The file is gone.", "file_gone")
        return file_response(job.path, job.file)

    async def list_songs(request: Request) -> Response:
        songs = json.dumps([public_song(song) for song in store.page.songs()]).encode()
        tag = f'"{hashlib.blake2b(songs, digest_size=8).hexdigest()}"'
        known = request.headers.get("if-none-match") == tag
        return Response(b"" if known else songs, 304 if known else 200, {"etag": tag}, "application/json")

    async def show_song(request: Request) -> Response:
        return answer(public_song(asked_song(request)))

    async def song_file(request: Request) -> Response:
        song, name = asked_song(request), request.path_params["file"]
        links = {file_name(stem, kind): stem[kind] for stem in song["stems"] for kind in ("audio", "picture")}
        links |= {"cover.jpg": song["cover"]} if "cover" in song else {}
        if name not in links:
            raise HTTPException(404, "There is no such file.")
        return file_response(store.page.file(links[name]), f"{song['name']} - {name}")

    async def song_zip(request: Request) -> Response:
        song = asked_song(request)
        files = {file_name(stem, "audio"): store.page.file(stem["audio"]) for stem in song["stems"]}
        files = {portable_name(f"{song['name']} - {name}"): path for name, path in files.items()}
        headers = {"content-disposition": attachment(f"{song['name']}.zip")}
        return responses.StreamingResponse(zipped(files), media_type="application/zip", headers=headers)

    async def create_stem_file(request: Request) -> Response:
        song = asked_song(request)
        try:
            check_stem_file({stem["name"]: stem for stem in song["stems"]})
        except UserError as error:  # whose words are those of the command line
            message = f"a stem file holds {', '.join(FOUR)}: send the song again with stems=all."
            raise UserError(message, "wrong_stems") from error
        job = store.write_stem_file(song["name"])
        return answer(public_job(job), 202, location=f"../../jobs/{job.id}")

    routes = [
        route("/", GET=page),
        route("/openapi.json", GET=describe),
        route("/api/jobs", GET=list_jobs, POST=create_job),
        route("/api/jobs/{job}", GET=show_job, DELETE=delete_job),
        route("/api/jobs/{job}/file", GET=job_file),
        route("/api/songs", GET=list_songs),
        route("/api/songs/{song}", GET=show_song),
        route("/api/songs/{song}/zip", GET=song_zip),
        route("/api/songs/{song}/stem", POST=create_stem_file),
        route("/api/songs/{song}/files/{file}", GET=song_file),
    ]
    handlers = dict.fromkeys((HTTPException, UserError, ClientDisconnect), refuse)
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token)], exception_handlers=handlers)


def route(path: str, **handlers: Callable[[Request], Awaitable[Response]]) -> Route:
    """One route for all methods of a path, so that a 405 response lists all of them."""

    async def dispatch(request: Request) -> Response:
        return await handlers["GET" if request.method == "HEAD" else request.method](request)

    return Route(path, dispatch, methods=list(handlers))


async def receive_song(request: Request, job: StoredJob, size: int) -> None:
    """Write a request body to the file of a job. Raises `UserError` if it is empty, too large or cannot be stored."""
    pending = bytearray()
    try:
        with job.path.open("xb") as file:
            async for chunk in request.stream():
                if job.state == "cancelled":
                    raise UserError(f"“{job.name}” was deleted during the upload.", "deleted")
                job.size += len(chunk)
                job.progress = min(1.0, job.size / size) if size else None
                if job.size > SONG_BYTES:
                    raise UserError(f"a song may be {SONG_BYTES >> 30} GB at most: cut it first.", "too_large")
                pending += chunk
                if len(pending) >= BLOCK:
                    await run_in_threadpool(file.write, pending)
                    pending = bytearray()
            await run_in_threadpool(file.write, pending)
        if not job.size:
            raise UserError(f"“{job.name}” is empty.", "empty_song")
    except OSError as error:
        raise UserError(
            f"“{job.name}” cannot be stored ({error.strerror}): make room on the disk.", "no_room"
        ) from error


async def refuse(request: Request, error: Exception) -> Response:
    """The response to a request that cannot be served: a code for programs, a sentence for people."""
    if isinstance(error, UserError):
        status, message, code = STATUS.get(error.code, 400), str(error), error.code
        headers = {"retry-after": "10"} if status == 429 else {}
    else:
        known = error if isinstance(error, HTTPException) else HTTPException(400, "The request broke off.")
        status, message, headers = known.status_code, known.detail, dict(known.headers or {})
        code = HTTPStatus(status).phrase.lower().replace(" ", "_")
        if message == HTTPStatus(status).phrase:  # the router's
            message = f"There is no {request.method} {request.url.path}: /openapi.json lists the calls."
    if request.url.path == "/":  # the page, which people open
        return responses.PlainTextResponse(message, status, headers)
    return answer({"code": code, "message": message}, status, **headers)


def answer(value: Any, status: int = 200, **headers: str) -> Response:
    """A JSON response in ASCII: file names may contain what UTF-8 cannot encode."""
    return Response(json.dumps(value), status, {"cache-control": "no-store", **headers}, "application/json")


def public_job(job: StoredJob) -> dict[str, Any]:
    """A job as clients see it."""
    names = ("id", "kind", "name", "state", "progress", "already_there", "remarks", "error")
    facts = {name: getattr(job, name) for name in names}
    file = f"api/jobs/{job.id}/file" if (job.kind, job.state) == ("stem_file", "done") else None
    return {**facts, "song": song_id(job.song) if job.song else None, "file": file}


def public_song(song: Mapping[str, Any]) -> dict[str, Any]:
    """An entry of the page whose links point into the API, not to files beside the page."""
    place = f"api/songs/{song_id(song['name'])}"
    stems = [
        {"name": stem["name"]}
        | {kind: f"{place}/files/{quote(file_name(stem, kind))}" for kind in ("audio", "picture")}
        for stem in song["stems"]
    ]
    cover = {"cover": f"{place}/files/cover.jpg"} if "cover" in song else {}
    facts = {key: song[key] for key in ("name", "title", "artist", "seconds", "rate") if key in song}
    return {"id": song_id(song["name"]), **facts, **cover, "stems": stems, "zip": f"{place}/zip"}


def file_name(stem: Mapping[str, str], kind: str) -> str:
    """File name of a stem's audio or picture, as clients see it."""
    return stem["name"] + PurePosixPath(stem[kind]).suffix


def file_response(path: Path, name: str) -> Response:
    kind = MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
    return responses.FileResponse(path, headers={"content-disposition": attachment(name)}, media_type=kind)


def attachment(name: str) -> str:
    """The Content-Disposition header that saves a file under this name; clients like curl read only the ASCII one."""
    name = portable_name(name)  # without quotes and backslashes
    quoted = quote(name.encode(errors="replace"), safe="")
    return f"""attachment; filename="{re.sub("[^ -~]", "_", name)}"; filename*=UTF-8''{quoted}"""


class Pieces(list[bytes]):
    """A file that keeps what is written in pieces."""

    def write(self, content: Any) -> int:
        self.append(bytes(content))
        return len(content)

    def flush(self) -> None:
        """Nothing is held back."""


def zipped(files: Mapping[str, Path]) -> Iterator[bytes]:
    """An uncompressed zip of files by their names in it, block by block."""
    pieces = Pieces()
    with zipfile.ZipFile(cast(Any, pieces), "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            entry = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while block := source.read(BLOCK):
                    target.write(block)
                    yield b"".join(pieces)
                    pieces.clear()
    yield b"".join(pieces)


def describe_api(store: JobStore, token: str | None) -> dict[str, Any]:
    """The OpenAPI document of this app, with the choices that its weights allow."""
    document = json.loads((PAGE / "openapi.json").read_text(encoding="utf-8"))
    document["info"] |= {"version": separation.__version__, "x-licence-of-the-weights": store.choices.licence}
    for parameter in document["paths"]["/api/jobs"]["post"]["parameters"]:
        if values := store.choices.values.get(parameter["name"]):
            parameter["schema"] |= {"enum": [*values], "default": values[0]}
    return document if token else {**document, "security": []}


class Guard:
    """Refuses requests under another host's name, from other sites' pages and, if there is a token, without it.

    Otherwise a page elsewhere could make a visitor's browser post to this machine (cross-site request forgery), or
    point its own domain at this machine's address (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None):
        self.app, self.token = app, token
        # Cookies are shared by all ports of a host: two apps must not overwrite each other's.
        self.cookie = f"token-{hashlib.blake2b((token or '').encode(), digest_size=4).hexdigest()}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":  # server start-up or shutdown
            return await self.app(scope, receive, send)
        request = Request(scope)
        try:
            reply = self._check(request) or self.app
        except HTTPException as error:
            reply = await refuse(request, error)
        await reply(scope, receive, send_with_headers)

    def _check(self, request: Request) -> Response | None:
        """The response to a request that is not passed on, or None. Raises HTTPException to refuse a request."""
        path, headers, host = request.url.path, request.headers, request.headers.get("host", "")
        sender = headers.get("x-forwarded-for", "localhost").split(",")
        if self.token is None and not all(map(is_loopback, (host_name(host), *sender))):
            raise HTTPException(403, "This app is for this machine alone: open it as http://127.0.0.1.")
        # Browsers state where a request comes from: over HTTPS and on this machine in the first header, else in the
        # second. A proxy that terminates HTTPS changes the scheme, and perhaps the host.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        own = (host, headers.get("x-forwarded-host"))
        foreign = site not in ("same-origin", "none") if site else origin and origin.partition("//")[2] not in own
        is_link = path == "/" and request.method == "GET" and origin is None
        if foreign and not is_link:
            raise HTTPException(403, "Pages of other sites may not use this app.")
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        if self.token is None or self._matches(bearer) or self._matches(request.cookies.get(self.cookie, "")):
            return None
        if path == "/" and self._matches(request.query_params.get("token", "")):
            reply, secure = responses.RedirectResponse("./", 303), headers.get("x-forwarded-proto") == "https"
            # Lax: a strict cookie would not be sent when the link is clicked on another site, such as webmail.
            reply.set_cookie(self.cookie, self.token, httponly=True, samesite="lax", secure=secure)
            return reply
        text = "Open the address that the app printed: it has a token in it."
        raise HTTPException(401, text, {"www-authenticate": "Bearer"})

    def _matches(self, token: str) -> bool:
        return secrets.compare_digest(token.encode(errors="replace"), (self.token or "").encode())


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port."""
    with suppress(ValueError):
        return urlsplit(f"//{host}").hostname or ""
    return ""


def is_loopback(host: str) -> bool:
    """Whether a name or an address refers to this machine."""
    with suppress(ValueError):
        return ip_address(host.strip(" []")).is_loopback
    return host.strip() == "localhost"
