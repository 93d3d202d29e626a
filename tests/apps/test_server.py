"""The app as a browser meets it, and as a stranger would try to misuse it."""

from __future__ import annotations

import io
import json
import random
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from urllib.parse import quote

import pytest
import soundfile
import torch
from conftest import REPOSITORY, environment
from music import cover_art
from networks import random_weights
from PIL import Image

from separation.audio.io import AudioReader, AudioWriter, read, write
from separation.audio.tags import read_cover
from separation.songs.page import Page
from separation.stems import STEMS

pytest.importorskip("uvicorn")
RATE = 44100


class App:
    """The app of a folder, running."""

    def __init__(self, folder: Path, weights: Path, *arguments: str):
        command = [sys.executable, "app.py", "--no-browser", "--port", "0", "--output", str(folder)]
        command += ["--weights", str(weights), *arguments]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=environment(), **options)
        self.address = re.search(r"http://\S+", self.process.stdout.readline())[0]

    def ask(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(self.address.rstrip("/") + path, body, names, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def state(self) -> dict:
        return json.loads(self.ask("/state")[1])

    def send(self, name: str, content: bytes) -> dict:
        return json.loads(self.ask(f"/songs?name={quote(name)}", "POST", content)[1])

    def wait(self, done) -> dict:
        for _ in range(600):
            state = self.state()
            if done(state):
                return state
            time.sleep(0.1)
        raise AssertionError(state)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        finally:
            self.process.kill()


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


def test_a_song_comes_apart_and_its_stems_are_to_be_had(app, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, suffix in (("first", ".wav"), ("second", ".mp3")):
        app.send(name + suffix, song(suffix=suffix))
    songs = app.wait(lambda state: len(state["songs"]) == 2)["songs"]
    assert [entry["name"] for entry in songs] == ["first", "second"]
    total = 0
    for stem in songs[0]["stems"]:
        status, content = app.ask("/" + stem["audio"])
        (tmp_path / "stem.wav").write_bytes(content)
        total = total + read(tmp_path / "stem.wav")[0]
        assert status == 200 and app.ask("/" + stem["picture"])[1].startswith(b"\x89PNG")
    (tmp_path / "song.wav").write_bytes(song())
    torch.testing.assert_close(total, read(tmp_path / "song.wav")[0], atol=1e-4, rtol=0)
    with zipfile.ZipFile(io.BytesIO(app.ask("/zip?song=first")[1])) as archive:
        assert archive.testzip() is None and sorted(archive.namelist()) == sorted(f"{stem}.wav" for stem in STEMS)


def tagged_song(folder: Path) -> bytes:
    path, tags = folder / "song.flac", {"title": "Lithium", "artist": "Nobody 歌"}
    with AudioWriter(path, RATE, 2, bits="24", tags=tags, cover=cover_art(size=(600, 400))) as writer:
        writer.write(0.1 * torch.sin(torch.arange(2 * RATE) * 0.05).expand(2, -1))
    return path.read_bytes()


def test_title_artist_and_cover_are_shown_and_a_stem_file_has_them(app, tmp_path):
    app.send("05 track.flac", tagged_song(tmp_path))
    state = app.wait(lambda state: any(entry["name"] == "05 track" for entry in state["songs"]))
    (entry,) = (entry for entry in state["songs"] if entry["name"] == "05 track")
    assert (entry["title"], entry["artist"]) == ("Lithium", "Nobody 歌")
    with Image.open(io.BytesIO(app.ask("/" + entry["cover"])[1])) as cover:
        assert cover.size == (256, 171)
    status, content = app.ask("/stem?song=05%20track")
    path = tmp_path / "taken.stem.m4a"
    path.write_bytes(content)
    assert status == 200 and read_cover(path).startswith(b"\xff\xd8")
    with AudioReader(path) as reader:
        assert reader.tags["title"] == "Lithium" and reader.tags["artist"] == "Nobody 歌"
    streams = [read(path, track=stream)[0][:, : 2 * RATE] for stream in range(5)]
    folder = Path(app.process.args[app.process.args.index("--output") + 1])
    stems = [read(folder / "05 track" / f"{stem}.wav")[0] for stem in ("drums", "bass", "other", "vocals")]
    for stream, stem in zip(streams, [sum(stems), *stems], strict=True):
        assert (stream - stem).square().sum() < 0.01 * stem.square().sum()  # 20 dB: AAC loses something
    assert app.ask("/stem?song=none")[0] == 404
    (folder / "05 track/bass.wav").unlink()
    assert app.ask("/stem?song=05%20track")[0] == 409
    for _ in range(100):  # it is removed once it is sent
        if not list((folder / ".uploads").glob("stem-*")):
            return
        time.sleep(0.1)
    raise AssertionError("a stem file that was taken is left")


def test_a_song_without_tags_is_called_by_its_file(app, tmp_path):
    app.send("An evening.wav", song(seed=12))
    app.wait(lambda state: any(entry["name"] == "An evening" for entry in state["songs"]))
    (tmp_path / "vocals.wav").write_bytes(app.ask("/An%20evening/vocals.wav")[1])
    with AudioReader(tmp_path / "vocals.wav") as reader:
        assert reader.tags["title"] == "An evening (vocals)"


def test_a_bad_file_is_a_sentence_and_the_next_song_is_done(app):
    app.send("bad.mp3", b"no music at all")
    app.send("good.wav", song(seed=3))
    state = app.wait(lambda state: any(entry["name"] == "good" for entry in state["songs"]))
    (bad,) = (entry for entry in state["queue"] if entry["name"] == "bad")
    assert bad["state"] == "failed" and "“bad” is no audio" in bad["reason"]
    assert app.ask(f"/songs/{bad['key']}", "DELETE")[0] == 204
    assert not any(entry["key"] == bad["key"] for entry in app.state()["queue"])


def test_a_song_can_be_cancelled(app):
    key = app.send("long.wav", song(200))["key"]
    assert app.ask(f"/songs/{key}", "DELETE")[0] == 204
    app.send("after.wav", song(seed=4))
    state = app.wait(lambda state: any(entry["name"] == "after" for entry in state["songs"]))
    assert not any(entry["name"] == "long" for entry in state["songs"])


@pytest.mark.parametrize("name", ["../../escape.wav", "..\\..\\escape.wav", "/etc/escape.wav", "escape\0.wav"])
def test_names_from_outside_never_become_paths(app, name):
    before = len(app.state()["songs"])
    app.send(name, song(seed=hash(name) % 1000))
    app.wait(lambda state: len(state["songs"]) > before)
    assert not list(Path("/etc").glob("escape*")) and not list(REPOSITORY.parent.glob("escape*"))


@pytest.mark.parametrize(
    "path", ["/../app.py", "/%2e%2e/app.py", "/.uploads/", "/index.html", "/first/.separation.json"]
)
def test_nothing_but_the_stems_can_be_had(app, path):
    assert app.ask(path)[0] == 404


def test_pages_of_other_sites_and_other_names_are_refused(app):
    before = app.state()
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert app.ask("/songs?name=x.wav", "POST", song(), **headers)[0] == 403
    assert app.ask("/state", Host="evil.example:80")[0] == 403
    assert len(app.state()["queue"]) == len(before["queue"])


def test_nonsense_leaves_it_standing(app):
    draw = random.Random(0)
    for _ in range(200):
        path = "/" + "".join(draw.choice("abc/%?&=.\\~é<>") for _ in range(draw.randrange(40)))
        method = draw.choice(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS"])
        assert app.ask(quote(path, safe="/%?&="), method, draw.randbytes(draw.randrange(300)))[0] < 500
    for entry in app.state()["queue"]:
        app.ask(f"/songs/{entry['key']}", "DELETE")
    assert app.ask("/")[0] == 200


def test_with_other_machines_allowed_a_token_is_needed(tmp_path, weights):
    app = App(tmp_path, weights, "--host", "0.0.0.0")
    try:
        address, _, token = app.address.partition("?token=")
        port = re.search(r":(\d+)/", address)[1]
        app.address = f"http://127.0.0.1:{port}"
        assert len(token) > 15 and app.ask("/")[0] == app.ask("/state")[0] == app.ask("/?token=wrong")[0] == 403
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        assert b"drop" in opener.open(f"{app.address}/?token={token}").read()
        assert opener.open(f"{app.address}/state").status == 200
    finally:
        app.stop()


def test_a_stopped_app_finds_its_songs_again(tmp_path, weights):
    for turn in range(2):
        app = App(tmp_path / "stems", weights)
        try:
            if turn == 0:
                app.send("song.wav", song())
            app.wait(lambda state: [entry["name"] for entry in state["songs"]] == ["song"])
        finally:
            app.stop()
        assert app.process.returncode in (0, 130) and not list((tmp_path / "stems/.uploads").iterdir())


@pytest.fixture
def tab(browser):
    tab = browser.new_page()
    yield tab
    tab.close()


def until(tab, is_so) -> None:
    """Wait for something in a page, which lets no test put code into it."""
    for _ in range(100):
        if is_so():
            return
        tab.wait_for_timeout(100)
    raise AssertionError


def test_in_a_browser_a_song_is_dropped_heard_and_its_mix_taken_away(app, tab, tmp_path):
    complaints = []
    tab.on("pageerror", lambda error: complaints.append(error))
    tab.goto(app.address)
    (tmp_path / "dropped.wav").write_bytes(song(6, seed=9))
    tab.set_input_files("#pick", tmp_path / "dropped.wav")
    tab.wait_for_selector("#queue li")
    tab.reload()
    card = tab.wait_for_selector("article[aria-label='dropped']", timeout=60_000)
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
        app.send("song.wav", song(6))
        (entry,) = app.wait(lambda state: state["songs"])["songs"]
        assert all(stem["audio"].endswith(".mp3") for stem in entry["stems"])
        tab.goto(app.address)
        tab.click(".play")
        until(tab, lambda: tab.evaluate("Song.current.ensemble instanceof Ensemble && Song.current.at > 0.3"))
        until(tab, lambda: tab.evaluate("Math.min(...Song.current.stems.map((stem) => stem.shown))") > 0)
        tab.evaluate("Song.current.seek(5.5)")
        tab.wait_for_selector("article:not(.playing)")
    finally:
        app.stop()
