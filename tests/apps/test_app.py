"""The app as a browser meets it, and as a stranger would try to misuse it."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from email.message import Message
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

import pytest
import soundfile
import torch
from conftest import REPOSITORY, environment
from music import cover_art
from networks import random_weights
from PIL import Image
from sounds import ffmpeg, ffprobe, read

from separation.audio.io import AudioReader, AudioWriter, write
from separation.audio.tags import read_cover
from separation.songs.page import Page
from separation.stems import STEMS

pytest.importorskip("uvicorn")
RATE = 44100


class App:
    """The app of a folder, running."""

    def __init__(self, folder: Path, weights: Path, *arguments: str, **variables: str):
        self.folder = folder
        command = [sys.executable, "app.py", "--no-browser", "--port", "0", "--output", str(folder)]
        command += ["--weights", str(weights), *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env={**environment(), **variables}, **options)
        self.address, _, self.token = re.search(r"http://\S+", self.process.stdout.readline())[0].partition("?token=")

    def request(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, Message]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address.rstrip("/") + path, body, names, method=method)
        opener = urllib.request.build_opener(KeepRedirects)
        try:
            with opener.open(request, timeout=60) as answer:
                return answer.status, answer.read(), answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read(), error.headers

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        return self.request(path, method, body, **headers)[:2]

    def get(self, path: str) -> Any:
        return json.loads(self.ask(path)[1])

    def send(self, name: str, content: bytes, **options: str) -> dict:
        return json.loads(self.ask(f"/api/jobs?{urlencode({'name': name, **options})}", "POST", content)[1])

    def wait(self, job: dict, *states: str) -> dict:
        """The job when it is in one of these states, by default when it has ended."""
        for _ in range(600):
            job = self.get(f"/api/jobs/{job['id']}")
            if job["state"] in (states or ("done", "failed")):
                return job
            time.sleep(0.1)
        raise AssertionError(job)

    def song(self, job: dict) -> dict:
        """The song of a job, when it is done."""
        job = self.wait(job)
        assert job["state"] == "done", job
        return self.get(f"/api/songs/{job['song']}")

    def names(self) -> list[str]:
        return [song["name"] for song in self.get("/api/songs")]

    def stop(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()


class KeepRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return random_weights(tmp_path_factory.mktemp("weights") / "all.safetensors", STEMS)


@pytest.fixture(scope="module")
def app(tmp_path_factory, weights):
    running = App(tmp_path_factory.mktemp("app") / "stems", weights)
    yield running
    running.stop()


def song(seconds: float = 2, seed: int = 0, suffix: str = ".wav") -> bytes:
    noise = 0.1 * torch.randn(2, int(seconds * RATE), generator=torch.Generator().manual_seed(seed))
    if suffix == ".wav":
        file = io.BytesIO()
        soundfile.write(file, noise.T.numpy(), RATE, format="WAV")
        return file.getvalue()
    path = Path(f"song{suffix}")
    write(path, noise, RATE)
    return path.read_bytes()


def code(content: bytes) -> str:
    return json.loads(content)["code"]


def saved_as(headers: Message) -> list[str]:
    """The names under which a plain client and a browser save a download."""
    pattern = r"""attachment; filename="([ !#-[\]-~]+)"; filename\*=UTF-8''(\S+)"""
    return list(map(unquote, re.fullmatch(pattern, headers["content-disposition"]).groups()))


def test_a_song_becomes_stems_that_sum_to_it(app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = [app.send(name + suffix, song(suffix=suffix)) for name, suffix in (("first", ".wav"), ("second", ".mp3"))]
    assert [app.song(job)["name"] for job in jobs] == ["first", "second"]
    entry, total = app.song(jobs[0]), 0
    for stem in entry["stems"]:
        status, content, headers = app.request("/" + stem["audio"])
        (tmp_path / "stem.wav").write_bytes(content)
        total = total + read(tmp_path / "stem.wav")[0]
        assert status == 200 and app.ask("/" + stem["picture"])[1].startswith(b"\x89PNG")
        assert headers["content-type"] == "audio/wav"
        assert saved_as(headers) == [f"first - {stem['name']}.wav"] * 2
    (tmp_path / "song.wav").write_bytes(song())
    torch.testing.assert_close(total, read(tmp_path / "song.wav")[0], atol=1e-4, rtol=0)
    status, part, headers = app.request("/" + entry["stems"][0]["audio"], Range="bytes=0-3")
    assert (status, part) == (206, b"RIFF")


def test_a_zip_has_stems_named_after_the_song(app):
    entry = app.song(app.send('Zipped: "é" 100 %.wav', song(seed=5)))
    status, content, headers = app.request("/" + entry["zip"])
    assert status == 200 and headers["content-type"] == "application/zip"
    assert saved_as(headers) == ["Zipped_ ___ 100 %.zip", "Zipped_ _é_ 100 %.zip"]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == sorted(f"{entry['name']} - {stem}.wav" for stem in STEMS)


def tagged_song(folder: Path) -> bytes:
    path, tags = folder / "song.flac", {"title": "Lithium", "artist": "Nobody 歌"}
    with AudioWriter(path, RATE, 2, bits="24", tags=tags, cover=cover_art(size=(600, 400))) as writer:
        writer.write(0.1 * torch.sin(torch.arange(2 * RATE) * 0.05).expand(2, -1))
    return path.read_bytes()


def test_title_artist_and_cover_are_shown_and_a_stem_file_has_them(app, tmp_path):
    entry = app.song(app.send("05 track.flac", tagged_song(tmp_path)))
    assert (entry["title"], entry["artist"]) == ("Lithium", "Nobody 歌")
    with Image.open(io.BytesIO(app.ask("/" + entry["cover"])[1])) as cover:
        assert cover.size == (256, 171)
    status, content = app.ask(f"/api/songs/{entry['id']}/stem", "POST")
    assert status == 202
    job = app.wait(json.loads(content))
    assert (job["state"], job["progress"], job["kind"]) == ("done", 1.0, "stem_file")
    path = tmp_path / "taken.stem.m4a"
    status, content, headers = app.request("/" + job["file"])
    path.write_bytes(content)
    assert status == 200 and saved_as(headers) == ["05 track.stem.m4a"] * 2
    assert read_cover(path).startswith(b"\xff\xd8")
    with AudioReader(path) as reader:
        assert reader.tags["title"] == "Lithium" and reader.tags["artist"] == "Nobody 歌"
    streams = [read(path, track=stream)[0][:, : 2 * RATE] for stream in range(5)]
    stems = [read(app.folder / "05 track" / f"{stem}.wav")[0] for stem in ("drums", "bass", "other", "vocals")]
    for stream, stem in zip(streams, [sum(stems), *stems], strict=True):
        assert (stream - stem).square().sum() < 0.01 * stem.square().sum()  # 20 dB: AAC loses something
    assert app.ask(f"/api/jobs/{job['id']}", "DELETE")[0] == 204
    assert app.ask("/" + job["file"])[0] == 404


def test_a_song_without_tags_is_called_by_its_file(app, tmp_path):
    entry = app.song(app.send("An evening.wav", song(seed=12)))
    (tmp_path / "vocals.wav").write_bytes(app.ask("/" + entry["stems"][0]["audio"])[1])
    with AudioReader(tmp_path / "vocals.wav") as reader:
        assert reader.tags["title"] == "An evening (vocals)"


def test_stems_format_and_quality_are_chosen_for_each_song(app):
    entry = app.song(app.send("chosen.wav", song(seed=13), stems="two", format="flac", quality="best"))
    assert [stem["audio"].rpartition("/")[2] for stem in entry["stems"]] == ["vocals.flac", "accompaniment.flac"]
    assert app.ask("/" + entry["stems"][0]["audio"])[1].startswith(b"fLaC")
    for option, value in (("stems", "guitar"), ("stems", "../x"), ("format", "exe"), ("quality", "")):
        status, content = app.ask(f"/api/jobs?name=x.wav&{option}={quote(value)}", "POST", song())
        assert (status, code(content)) == (400, f"unknown_{option}") if value else status == 202


def film(folder: Path) -> bytes:
    """A video of two seconds with sound."""
    (folder / "song.wav").write_bytes(song(2, seed=40))
    picture = ("-f", "lavfi", "-i", "testsrc=d=2:s=640x360:r=25")
    ffmpeg(*picture, "-i", folder / "song.wav", "-c:v", "libx264", "-c:a", "aac", folder / "film.mp4")
    return (folder / "film.mp4").read_bytes()


def test_a_video_comes_back_with_a_stem_as_its_sound(app, tmp_path):
    entry = app.song(app.send("Concert.mp4", film(tmp_path), stems="two", format="video"))
    assert [stem["audio"].rpartition("/")[2] for stem in entry["stems"]] == ["vocals.mp4", "accompaniment.mp4"]
    status, content, headers = app.request("/" + entry["stems"][1]["audio"])
    assert (status, headers["content-type"]) == (200, "video/mp4")
    (tmp_path / "taken.mp4").write_bytes(content)
    assert [stream["codec_type"] for stream in ffprobe(tmp_path / "taken.mp4")["streams"]] == ["video", "audio"]
    with zipfile.ZipFile(io.BytesIO(app.ask("/" + entry["zip"])[1])) as archive:
        assert archive.namelist() == ["Concert - vocals.mp4", "Concert - accompaniment.mp4"]


def test_a_song_without_a_picture_is_no_video(app):
    jobs = app.get("/api/jobs")
    status, content = app.ask("/api/jobs?name=heard.wav&format=video", "POST", song())
    assert (status, code(content)) == (400, "no_picture")
    assert json.loads(content)["message"] == "“heard” has no picture: choose a format other than video."
    assert app.get("/api/jobs") == jobs and not list(app.folder.glob(".jobs/*/*/heard*"))


def test_two_stems_make_no_stem_file(app):
    entry = app.song(app.send("two.wav", song(seed=41), stems="two"))
    status, content = app.ask(f"/api/songs/{entry['id']}/stem", "POST")
    assert (status, code(content)) == (409, "wrong_stems") and b"--" not in content


def test_an_empty_song_is_refused(app):
    status, content = app.ask("/api/jobs?name=empty.wav", "POST", b"")
    assert (status, code(content)) == (400, "empty_song")


def test_a_song_that_is_there_is_not_separated_again(app):
    first = app.wait(app.send("twice.wav", song(seed=14)))
    again = app.wait(app.send("twice.wav", song(seed=14)))
    assert (first["already_there"], again["already_there"]) == (False, True)
    assert first["song"] == again["song"]


def test_another_song_of_the_same_name_gets_a_number_and_other_stems_a_name_that_says_so(app):
    songs = {seed: song(seed=seed) for seed in (31, 32)}
    assert [app.song(app.send("take.wav", songs[seed]))["name"] for seed in (31, 32, 32)] == [
        "take",
        "take (2)",
        "take (2)",
    ]
    again = app.song(app.send("take.wav", songs[31], stems="karaoke", format="mp3"))
    assert again["name"] == "take (karaoke, mp3, all)"  # the last is the name of these weights
    assert [stem["audio"].rpartition("/")[2] for stem in again["stems"]] == ["karaoke.mp3"]


def test_a_bad_file_is_a_sentence_and_the_next_song_is_done(app):
    bad = app.send("bad.mp3", b"no music at all")
    assert app.song(app.send("good.wav", song(seed=3)))["name"] == "good"
    bad = app.wait(bad)
    assert bad["error"]["code"] == "no_audio" and "“bad” cannot" in bad["error"]["message"]
    assert app.ask(f"/api/jobs/{bad['id']}", "DELETE")[0] == 204
    assert app.ask(f"/api/jobs/{bad['id']}")[0] == 404


def without_length(content: bytes) -> bytes:
    """A FLAC whose header does not tell its length, as programs write that stream it."""
    assert content[:5] == b"fLaC\0"  # STREAMINFO follows
    return content[:21] + bytes([content[21] & 0xF0, 0, 0, 0, 0]) + content[26:]


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_song_can_be_cancelled(app, tmp_path, monkeypatch, suffix):
    monkeypatch.chdir(tmp_path)
    content = song(200, suffix=suffix)
    job = app.send(f"long{suffix}", without_length(content) if suffix == ".flac" else content)
    app.wait(job, "running")
    assert app.ask(f"/api/jobs/{job['id']}", "DELETE")[0] == 204
    assert app.ask(f"/api/jobs/{job['id']}")[0] == 404
    app.song(app.send(f"after{suffix}.wav", song(seed=4)))  # songs come one after the other
    assert "long" not in app.names() and not (app.folder / "long").exists()


def snapshot(root: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


@pytest.mark.parametrize("absolute", [False, True])
def test_names_from_outside_never_become_paths(tmp_path, weights, absolute):
    """Wherever a name leads, within the whole tree nothing but the folder of stems changes."""
    app = App(tmp_path / "a/b/c/stems", weights)
    names = [
        "../../escape.wav",
        "..\\..\\escape.wav",
        "escape\0.wav",
        "..",
        "../",
        ".../x.wav",
        "a/../../../escape.wav",
    ]
    names += ["%2e%2e%2fescape.wav", "CON.wav", ". .wav", "~/escape.wav", "escape.wav/../../../escape.wav"]
    names = [f"{tmp_path}/{name}" if absolute else name for name in names]
    try:
        before = snapshot(tmp_path)
        jobs = [app.send(name, song(0.1, seed)) for seed, name in enumerate(names)]
        states = {name: app.wait(job)["state"] for name, job in zip(names, jobs, strict=True)}
        assert set(states.values()) == {"done"}, states
        changed = {path for path, content in snapshot(tmp_path).items() if before.get(path, b"?") != content}
        assert len(app.names()) == len(names)
        assert all(path.is_relative_to(app.folder) for path in changed)
    finally:
        app.stop()


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/.jobs/", "/index.html", "/first/vocals.wav", "/first/.separation.json"]
)
def test_nothing_but_the_stems_is_served(app, path):
    assert app.ask(path)[0] == 404


@pytest.mark.parametrize("file", ["..%2F..%2Fapp.py", ".separation.json", "index.html", "vocals", "vocals.mp3", "%00"])
def test_of_a_song_nothing_but_its_files_is_served(app, file):
    entry = app.song(app.send("files.wav", song(seed=15)))
    assert app.ask(f"/api/songs/{entry['id']}/files/{file}")[0] == 404


def test_a_link_in_the_folder_leads_nowhere_else(app, tmp_path):
    """A folder of stems may come from somebody else."""
    entry = app.song(app.send("linked.wav", song(seed=16)))
    (tmp_path / "secret.wav").write_bytes(b"secret")
    vocals = app.folder / "linked/vocals.wav"
    vocals.unlink()
    vocals.symlink_to(tmp_path / "secret.wav")
    for link in (entry["stems"][0]["audio"], entry["zip"]):
        status, content = app.ask("/" + link)
        assert status == 404 and b"secret" not in content


def test_files_that_are_gone_while_listed_are_not_found(app):
    entry = app.song(app.send("gone.wav", song(seed=17)))
    for file in (app.folder / "gone").iterdir():
        file.unlink()
    links = [stem[kind] for stem in entry["stems"] for kind in ("audio", "picture")]
    assert {app.ask("/" + link)[0] for link in (*links, entry["zip"])} == {404}
    job = app.wait(json.loads(app.ask(f"/api/songs/{entry['id']}/stem", "POST")[1]))
    assert job["state"] == "failed" and "vocals.wav" in job["error"]["message"]


def test_a_page_that_was_replaced_is_said_and_nothing_is_lost(app):
    page, content = app.folder / "index.html", (app.folder / "index.html").read_text()
    try:
        page.write_text("<h1>mine</h1>")
        for path in ("/api/songs", "/"):
            assert app.ask(path)[0] == 409
        assert page.read_text() == "<h1>mine</h1>"
    finally:
        page.write_text(content)
    assert app.ask("/api/songs")[0] == 200


def test_pages_of_other_sites_and_other_names_are_refused(app):
    before = app.get("/api/jobs")
    own = app.address.rstrip("/")
    refused: list[dict[str, str]] = [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site", "Origin": own},
        {"X_Forwarded_For": "192.0.2.7"},
    ]
    for headers in refused:
        assert app.ask("/api/jobs?name=x.wav", "POST", song(), **headers)[0] == 403, headers
    assert app.ask("/api/jobs", Host="evil.example:80")[0] == 403
    assert app.get("/api/jobs") == before


def test_every_answer_is_kept_out_of_frames_and_the_page_runs_only_its_own_script(app):
    for path in ("/", "/api/jobs", "/nothing", "/openapi.json"):
        headers = app.request(path)[2]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    policy = app.request("/")[2]["content-security-policy"]
    scripts = re.search("script-src ([^;]*);", policy)[1]
    assert re.fullmatch("'sha256-[^']+'", scripts) and "default-src 'none'" in policy


def test_nonsense_leaves_it_standing(app):
    draw = random.Random(0)
    for _ in range(200):
        path = "/" + "".join(draw.choice("abc/%?&=.\\~é<>") for _ in range(draw.randrange(40)))
        method = draw.choice(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"])
        assert app.ask(quote(path, safe="/%?&="), method, draw.randbytes(draw.randrange(300)))[0] < 500
    assert app.ask("/")[0] == 200


def test_a_method_that_is_not_there_is_refused_with_those_that_are(app):
    status, content, headers = app.request("/api/jobs", "PUT")
    assert (status, code(content)) == (405, "method_not_allowed")
    assert {method.strip() for method in headers["allow"].split(",")} == {"GET", "HEAD", "POST"}
    assert code(app.ask("/openapi.json", "PUT")[1]) == "method_not_allowed"
    assert {code(app.ask(path)[1]) for path in ("/nothing", "/api", "/api/nothing")} == {"not_found"}


def test_the_document_describes_every_call(app):
    """Each path and method of the app is in the document, and the other way round."""
    from separation.apps.server import make_app

    routes = {(route.path, method) for route in make_app(None).routes for method in route.methods - {"HEAD"}}
    described = {
        (path, method.upper()) for path, item in app.get("/openapi.json")["paths"].items() for method in item
        if method != "parameters"
    }  # fmt: skip
    assert {(path, method) for path, method in routes if path.startswith("/api/")} == described


@pytest.mark.parametrize("chosen", [["karaoke"], []])
def test_the_document_says_what_these_weights_can_give(tmp_path, chosen):
    vocals = random_weights(tmp_path / "vocals.safetensors", ("vocals",))
    app = App(tmp_path / "stems", vocals, "--format", "mp3", *(f"--stems={stem}" for stem in chosen))
    try:
        parameters = app.get("/openapi.json")["paths"]["/api/jobs"]["post"]["parameters"]
        stems, form = (parameter["schema"] for parameter in parameters if parameter["name"] in ("stems", "format"))
        known = ["two", "karaoke", "instrumental", "acapella", "vocals", "accompaniment"]
        assert stems["enum"] == list(dict.fromkeys([*chosen, *known]))
        assert stems["default"] == stems["enum"][0]
        assert form["default"] == "mp3"
        entry = app.song(app.send("song.wav", song()))
        names = chosen or ["vocals", "accompaniment"]
        assert [stem["audio"].rpartition("/")[2] for stem in entry["stems"]] == [f"{name}.mp3" for name in names]
    finally:
        app.stop()


@pytest.fixture(scope="module")
def shared_app(tmp_path_factory, weights):
    """An app that other machines may use."""
    running = App(tmp_path_factory.mktemp("shared") / "stems", weights, "--host", "0.0.0.0")
    running.address = f"http://127.0.0.1:{re.search(r':([0-9]+)/', running.address)[1]}"
    yield running
    running.stop()


def test_with_other_machines_allowed_a_token_is_needed(shared_app):
    app = shared_app
    assert len(app.token) > 15
    for path in ("/", "/api/jobs", "/openapi.json", "/nothing", "/?token=wrong", "/api/jobs?token=" + app.token):
        assert app.ask(path)[0] == 401
    assert (
        app.ask("/api/jobs?name=x", "POST", song())[0] == app.ask("/api/jobs", Authorization="Bearer wrong")[0] == 401
    )
    assert app.ask("/api/jobs", Authorization=f"Bearer {app.token}")[0] == 200
    assert json.loads(app.ask("/openapi.json", Authorization=f"Bearer {app.token}")[1])["security"] == [{"token": []}]


def test_the_link_with_the_token_gives_a_cookie_that_no_script_and_no_other_site_can_use(shared_app):
    app = shared_app
    status, _, headers = app.request(f"/?token={app.token}", Sec_Fetch_Site="cross-site", Sec_Fetch_Mode="navigate")
    cookie, *flags = (part.strip() for part in headers["set-cookie"].split(";"))
    assert status == 303 and headers["location"] == "./"
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(flags) and "Secure" not in flags
    assert app.ask("/", Cookie=cookie)[0] == app.ask("/api/jobs", Cookie=cookie)[0] == 200
    assert app.ask("/", Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 200  # after the redirect
    assert app.ask("/api/jobs", Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 403
    assert app.ask("/api/jobs?name=x", "POST", song(), Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 403
    assert app.ask("/", "POST", b"", Cookie=cookie, Sec_Fetch_Site="cross-site")[0] == 403
    headers = app.request(f"/?token={app.token}", X_Forwarded_Proto="https")[2]
    assert "Secure" in headers["set-cookie"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "stems.example", "Origin": "https://stems.example", "X_Forwarded_Proto": "https"},
        {"Host": "stems.example:8443", "Origin": "https://stems.example:8443"},
        {"Origin": "https://stems.example", "X_Forwarded_Host": "stems.example"},
        {"Origin": "https://stems.example", "Sec_Fetch_Site": "same-origin"},
    ],
)
def test_a_proxy_may_end_https(shared_app, headers):
    """As nginx and others pass requests on, with the host of the outside and without."""
    app = shared_app
    token = {"Authorization": f"Bearer {app.token}"}
    status, content = app.ask("/api/jobs?name=proxied.wav", "POST", song(0.1), **token, **headers)
    assert status == 202
    assert app.ask(f"/api/jobs/{json.loads(content)['id']}", "DELETE", **token, **headers)[0] == 204
    assert app.ask("/api/jobs?name=x", "POST", song(0.1), **headers)[0] == 401


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_over_ipv6_the_address_has_brackets_and_answers(tmp_path, weights):
    app = App(tmp_path, weights, "--host", "::1")
    try:
        assert re.fullmatch(r"http://\[::1\]:\d+/", app.address) and not app.token  # this machine alone
        assert app.ask("/")[0] == 200
        assert app.song(app.send("song.wav", song(0.5), stems="two"))["name"] == "song"
        assert app.ask("/api/jobs", Host="evil.example")[0] == 403
    finally:
        app.stop()


def test_a_token_of_ones_own_is_asked_for_on_this_machine_as_well(tmp_path, weights):
    app = App(tmp_path, weights, SEPARATION_TOKEN="of my own")
    try:
        assert app.token == "of%20my%20own"
        assert app.ask("/api/jobs")[0] == 401
        assert app.ask("/api/jobs", Authorization="Bearer of my own", X_Forwarded_For="192.0.2.7")[0] == 200
        assert app.ask("/?token=of%20my%20own")[0] == 303
    finally:
        app.stop()


def test_a_killed_app_loses_no_song(tmp_path, weights):
    app = App(tmp_path / "stems", weights)
    jobs = [app.send(f"song {n}.wav", song(0.5, seed=n)) for n in range(8)]
    app.wait(jobs[1])
    app.stop(signal.SIGKILL)
    app = App(tmp_path / "stems", weights)
    try:
        assert [app.song(job)["name"] for job in jobs] == [f"song {n}" for n in range(8)]
        assert app.names() == [f"song {n}" for n in range(8)]
        assert not list(tmp_path.glob("stems/.jobs/*/*/*.wav"))  # songs are let go of
    finally:
        app.stop()
    assert app.process.returncode in (0, 130)


def test_a_second_app_leaves_the_songs_of_the_first_alone(tmp_path, weights):
    first = App(tmp_path / "stems", weights)
    try:
        jobs = [first.send(f"song {n}.wav", song(2, seed=n)) for n in range(4)]
        second = App(tmp_path / "stems", weights)
        try:
            other = second.song(second.send("other.wav", song(0.1, seed=9)))
            assert [first.song(job)["name"] for job in jobs] == [f"song {n}" for n in range(4)]
            assert other["name"] == "other" and "other" in first.names()
        finally:
            second.stop()
    finally:
        first.stop()


@pytest.fixture
def tab(browser):
    tab = browser.new_page()
    tab.set_default_timeout(120_000)
    yield tab
    tab.close()


def until(tab, is_so) -> None:
    """Wait for something in a page, which lets no test put code into it."""
    for _ in range(600):
        if is_so():
            return
        tab.wait_for_timeout(100)
    raise AssertionError


def test_in_a_browser_a_song_is_dropped_heard_and_its_mix_taken_away(app, tab, tmp_path):
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(error))
    tab.goto(app.address)
    (tmp_path / "dropped.wav").write_bytes(song(30, seed=9))
    tab.set_input_files("#pick", tmp_path / "dropped.wav")
    tab.wait_for_selector("#queue .waiting, #queue .running, article[aria-label='dropped']")
    tab.reload()
    card = tab.wait_for_selector("article[aria-label='dropped']")
    card.query_selector(".play").click()
    tab.wait_for_selector("article.playing")
    until(tab, lambda: tab.evaluate("Song.current.at") > 1)
    meters = "[...document.querySelectorAll('.current .meter')].map((m) => Number(m.style.getPropertyValue('--level')))"
    until(tab, lambda: min(tab.evaluate(meters)) > 0)
    card.query_selector("[data-stem=drums] .volume").fill("0")
    until(tab, lambda: [level > 0 for level in tab.evaluate(meters)] == [True, False, True, True])
    assert tab.evaluate("Song.current.stems.map((stem) => stem.audio.volume)") == [1, 1, 1, 1]  # phones leave it alone
    card.query_selector("[data-stem=drums] .volume").fill("1")
    card.query_selector("[data-stem=vocals] .mute").click()
    with tab.expect_download() as download:
        card.query_selector(".save").click()
    assert download.value.suggested_filename == "dropped - no vocals.wav"
    download.value.save_as(tmp_path / "mix.wav")
    mix, rate = read(tmp_path / "mix.wav")
    folder = Path(app.process.args[app.process.args.index("--output") + 1]) / "dropped"
    expected = sum(read(folder / f"{stem}.wav")[0] for stem in STEMS if stem != "vocals")
    assert rate == RATE
    torch.testing.assert_close(mix, expected, atol=1e-4, rtol=0)
    assert not complaints


def test_in_a_browser_a_page_asks_before_it_leaves_songs_unsent(app, tab, tmp_path):
    leaves = "dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    tab.goto(app.address)
    (tmp_path / "slow.wav").write_bytes(song(1, seed=33))
    held = []
    tab.route("**/api/jobs?name=*", lambda route: held.append(route))
    assert tab.evaluate(leaves)
    tab.set_input_files("#pick", tmp_path / "slow.wav")
    until(tab, lambda: held)
    assert not tab.evaluate(leaves)
    held[0].continue_()
    tab.wait_for_selector("article[aria-label='slow']")
    assert tab.evaluate(leaves)


def test_in_a_browser_what_is_chosen_is_made_and_what_is_there_already_is_shown(app, tab, tmp_path):
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(error))
    tab.goto(app.address)
    (tmp_path / "picked.wav").write_bytes(song(2, seed=21))
    tab.wait_for_selector("#stems option[value=two]", state="attached")
    tab.select_option("#stems", "two")
    tab.select_option("#format", "flac")
    tab.set_input_files("#pick", tmp_path / "picked.wav")
    card = tab.wait_for_selector("article[aria-label='picked']")
    assert [row.get_attribute("data-stem") for row in card.query_selector_all(".stem")] == ["vocals", "accompaniment"]
    download = card.query_selector("[data-stem=vocals] .download")
    assert download.get_attribute("download") == "picked - vocals.flac"
    assert card.query_selector("button.whole") is None  # a stem file takes four stems
    tab.wait_for_selector("#queue li:not(.failed)", state="detached")
    tab.reload()  # the choice is remembered
    tab.wait_for_selector("#stems option[value=two]", state="attached")
    assert tab.input_value("#stems") == "two" and tab.input_value("#format") == "flac"
    tab.set_input_files("#pick", tmp_path / "picked.wav")
    row = tab.wait_for_selector("#queue li.done")
    assert "there already" in row.inner_text()
    row.query_selector("button:has-text('Show')").click()
    tab.wait_for_selector("article.fresh[aria-label='picked']")
    tab.click("[aria-label='Dismiss picked']")
    assert tab.locator("#queue li:not(.failed)").count() == 0
    assert not complaints


def test_in_a_browser_a_video_is_sent_heard_and_taken_away(app, tab, tmp_path):
    tab.goto(app.address)
    tab.wait_for_selector("#format option[value=video]", state="attached")
    tab.select_option("#stems", "karaoke")
    tab.select_option("#format", "video")
    (tmp_path / "Evening.mp4").write_bytes(film(tmp_path))
    tab.set_input_files("#pick", [tmp_path / "Evening.mp4", tmp_path / "song.wav"])
    card = tab.wait_for_selector("article[aria-label='Evening']")
    assert "“song” has no picture" in tab.wait_for_selector("#queue li.failed:has-text('song.wav')").inner_text()
    card.query_selector(".play").click()
    until(tab, lambda: tab.evaluate("Song.current.at") > 0.5)
    with tab.expect_download() as download:
        card.query_selector(".download").click()
    assert download.value.suggested_filename == "Evening - karaoke.mp4"
    tab.reload()  # a song is dropped next time, perhaps
    tab.wait_for_selector("#format option[value=video]", state="attached")
    assert tab.input_value("#stems") == "karaoke" and tab.input_value("#format") != "video"


def test_in_a_browser_what_is_odd_about_a_song_is_shown_also_to_who_comes_later(app, tab, tmp_path):
    soundfile.write(tmp_path / "surround.wav", 0.1 * torch.ones(RATE, 6).numpy(), RATE)
    tab.goto(app.address)
    tab.set_input_files("#pick", tmp_path / "surround.wav")
    for _ in range(2):
        hint = tab.wait_for_selector("article[aria-label='surround'] .hint").inner_text()
        assert [hint] in [job["remarks"] for job in app.get("/api/jobs")]
        tab.reload()


def test_in_a_browser_a_stem_file_is_under_way_until_it_is_taken(app, tab):
    entry = app.song(app.send("for djs.wav", song(40, seed=22)))
    tab.goto(app.address)
    with tab.expect_download() as download:
        tab.click(f"article[aria-label='{entry['name']}'] button.whole")
        tab.wait_for_selector("#queue li:has-text('for djs.stem.m4a') progress")
    assert download.value.suggested_filename == "for djs.stem.m4a"
    tab.wait_for_selector("#queue li:not(.failed)", state="detached")


def test_in_a_browser_a_refusal_is_said_and_an_app_that_is_gone_too(tmp_path, weights, tab):
    app = App(tmp_path / "stems", weights)
    try:
        tab.goto(app.address)
        tab.wait_for_selector("#stems option", state="attached")
        tab.evaluate("document.getElementById('stems').append(new Option('guitar', 'guitar', true, true))")
        (tmp_path / "refused.wav").write_bytes(song())
        tab.set_input_files("#pick", tmp_path / "refused.wav")
        row = tab.wait_for_selector("#queue li.failed")
        assert "stems cannot be guitar: choose among" in row.inner_text()
    finally:
        app.stop()
    tab.wait_for_selector("#lost:visible")


def test_in_a_browser_the_link_with_the_token_works_on_another_site(shared_app, tab, tmp_path):
    """Such as web mail: the browser says with the request that another site asks, and sends no strict cookies."""
    (tmp_path / "mail.html").write_text(f'<a href="{shared_app.address}/?token={shared_app.token}">stems</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=tmp_path)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as mail:
        threading.Thread(target=mail.serve_forever, daemon=True).start()
        tab.goto(f"http://localhost:{mail.server_port}/mail.html")
        tab.click("a")
        tab.wait_for_selector("#drop")
        assert tab.url == shared_app.address + "/"
        mail.shutdown()


RESIDUE = """() => {
  const { stems } = Song.current;
  if (!window.taps) {
    const tap = () => Object.assign(stems[0].channel.context.createAnalyser(), { fftSize: 8192 });
    window.taps = [tap(), tap()];
    stems.forEach((stem) => stem.channel.fader.connect(taps[0]));
    stems[0].channel.fader.connect(taps[1]);
  }
  const [all, first] = taps.map((tap) => {
    const samples = new Float32Array(8192);
    tap.getFloatTimeDomainData(samples);
    return Math.hypot(...samples);
  });
  return first ? all / first : 1;
}"""
"""What sounds of all stems together, as a share of the first: of a stem and its opposite nothing, while in step."""


def test_stems_are_in_step_to_the_sample(tmp_path, weights, tab):
    noise = 0.2 * torch.randn(2, 20 * RATE, generator=torch.Generator().manual_seed(0)).T.numpy()
    page = Page(tmp_path)
    for kind in ("PCM_16", "PCM_24", "FLOAT"):
        paths = {stem: tmp_path / kind / f"{stem}.wav" for stem in ("vocals", "accompaniment")}
        paths["vocals"].parent.mkdir()
        for path, polarity in zip(paths.values(), (1, -1), strict=True):
            soundfile.write(path, polarity * noise, RATE, kind)
        page.add(kind, paths)
    app = App(tmp_path, weights)
    try:
        tab.goto(app.address)
        for kind in ("PCM_16", "PCM_24", "FLOAT"):
            tab.click(f"article[aria-label='{kind}'] .play")
            tab.evaluate("window.taps = null")
            for place in (13, 3.21, 7.7):
                tab.evaluate("(place) => Song.current.seek(place)", place)
                until(tab, lambda: tab.evaluate(RESIDUE) < 1e-3)
                assert place <= tab.evaluate("Song.current.ensemble.time") < 20
        tab.evaluate("Song.current.seek(19.8)")
        tab.wait_for_selector("article:not(.playing) >> nth=2")  # it has ended, as those before have
        assert tab.evaluate("Song.current.at") == 20
        tab.click("article.current .play")
        until(tab, lambda: 0 < tab.evaluate("Song.current.at") < 10)
        (tmp_path / "PCM_16" / "vocals.wav").unlink()
        tab.reload()
        tab.click("article[aria-label='PCM_16'] .play")
        assert "Cannot play vocals" in tab.wait_for_selector("article.current .trouble").text_content()
    finally:
        app.stop()


def test_stems_of_other_formats_play_as_well(tmp_path, weights, tab):
    app = App(tmp_path / "stems", weights, "--format", "mp3")
    try:
        entry = app.song(app.send("song.wav", song(6)))
        assert all(stem["audio"].endswith(".mp3") for stem in entry["stems"])
        tab.goto(app.address)
        tab.click(".play")
        until(tab, lambda: tab.evaluate("Song.current.ensemble instanceof Ensemble && Song.current.at > 0.3"))
        until(tab, lambda: tab.evaluate("Math.min(...Song.current.stems.map((stem) => stem.shown))") > 0)
        tab.evaluate("Song.current.seek(5.5)")
        tab.wait_for_selector("article:not(.playing)")
    finally:
        app.stop()
