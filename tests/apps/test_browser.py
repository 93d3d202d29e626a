"""The folder in a browser: a song comes apart there into the stems that the `Separator` makes of it."""

from __future__ import annotations

import base64
import io
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import REPOSITORY
from music import make_song
from sounds import read

from separation.errors import UserError
from separation.inference.separator import Separator
from separation.stems import STEMS

pytest.importorskip("onnx")

METER = "[...document.querySelectorAll('.meter')].some((meter) => meter.style.getPropertyValue('--level') > 0)"
"""Whether a level meter shows anything, in JavaScript."""

READ = """async () => Object.fromEntries(await Promise.all([...document.querySelectorAll(".stem")].map(async (row) => {
    const bytes = new Uint8Array(await (await fetch(row.querySelector(".download").href)).arrayBuffer());
    let text = "";
    for (let n = 0; n < bytes.length; n += 32768) text += String.fromCharCode(...bytes.subarray(n, n + 32768));
    return [row.dataset.stem, btoa(text)];
})))"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder, as the command makes it."""
    from separation.apps.browser import build

    if not shutil.which("npm"):
        pytest.skip("there is no npm here")
    folder = tmp_path_factory.mktemp("web")
    try:
        build(folder)
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """Where the folder is served, in a way that isolates the page."""
    from separation.apps.browser import make_server

    with make_server(folder, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def plain_address(folder):
    """Where any server serves the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing is said of single requests."""


@pytest.fixture
def page(browser, address):
    """The page; it asks no other host for anything, and raises no error."""
    page, errors, asked = browser.new_page(), [], []
    page.on("pageerror", lambda error: errors.append(error))
    page.on("request", lambda request: asked.append(request.url))
    page.set_default_timeout(120_000)
    page.goto(address)
    yield page
    page.close()
    assert not errors
    assert all(url.startswith((address, "blob:", "data:")) for url in asked)


def separated(page, path, network: str) -> dict[str, np.ndarray]:
    """The stems that the page makes of a song, `[channels, samples]`."""
    page.select_option("#network", network)
    page.set_input_files("#pick", path)
    page.wait_for_selector(".song")
    contents = page.evaluate(READ)
    files = {stem: io.BytesIO(base64.b64decode(text)) for stem, text in contents.items()}
    return {stem: soundfile.read(file, dtype="float32", always_2d=True)[0].T for stem, file in files.items()}


@pytest.mark.parametrize(("network", "channels"), [("vocals", 2), ("all", 2), ("vocals", 1)])
def test_a_song_comes_apart_as_it_does_in_python(page, tmp_path, network, channels):
    waveform = (0.7 * make_song(3, 3.3)["mixture"])[:channels]
    soundfile.write(tmp_path / "a song.wav", waveform.T.numpy(), 44100, "FLOAT")
    check_stems(separated(page, tmp_path / "a song.wav", network), waveform, network)
    assert page.locator(".stem img").count() == (4 if network == "all" else 2)
    assert page.get_attribute(".stem .download", "download") == "a song - vocals.wav"
    assert page.locator(".song .hint").count() == 0  # nothing was cut off


def check_stems(stems: dict[str, np.ndarray], waveform: torch.Tensor, network: str) -> None:
    """Compare stems with those of the `Separator` for `waveform`, `[channels, samples]`."""
    expected = Separator.load(stems=STEMS if network == "all" else ("vocals", "accompaniment"))
    expected.precision = "fp32"  # as in a browser
    for stem, signal in expected(waveform, 44100).items():
        assert stems[stem].shape == signal.shape
        assert np.abs(stems[stem] - signal.numpy()).max() < 2e-4  # the constants of the networks have half precision
    # A stem has 16 bits: its rounding is within half a step, 1.6e-5.
    assert np.abs(sum(stems.values()) - waveform.numpy()).max() < len(stems) * 2e-5


@pytest.mark.parametrize("network", ["vocals", "all"])
def test_real_music_comes_apart_as_it_does_in_python(page, tmp_path, network):
    stempeg = pytest.importorskip("stempeg")
    waveform, sample_rate = read(next(Path(stempeg.__file__).parent.glob("data/*.stem.mp4")))
    waveform = waveform[:, : 6 * sample_rate] * 0.8  # no sample of a stem is cut off
    assert sample_rate == 44100
    soundfile.write(tmp_path / "real.wav", waveform.T.numpy(), sample_rate, "FLOAT")
    check_stems(separated(page, tmp_path / "real.wav", network), waveform, network)


def test_a_song_of_another_rate_and_format_is_resampled(page, tmp_path):
    time = np.arange(22050 * 2) / 22050
    soundfile.write(tmp_path / "tone.flac", 0.3 * np.sin(2 * np.pi * 440 * time), 22050)
    stems = separated(page, tmp_path / "tone.flac", "vocals")
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(44100 * 2) / 44100)
    assert {signal.shape for signal in stems.values()} == {(1, 44100 * 2)}
    middle = slice(4410, -4410)  # resampling rings at the ends
    assert np.abs(sum(stems.values())[0] - tone)[middle].max() < 1e-3


def test_threads_are_used_where_the_page_is_isolated(page, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.zeros((4410, 2)), 44100)
    separated(page, tmp_path / "short.wav", "vocals")
    assert page.evaluate("crossOriginIsolated")
    cores = page.evaluate("navigator.hardwareConcurrency")
    assert page.get_attribute(".song", "data-threads") == str(min(cores, 8))


def test_any_static_server_does_in_one_thread(browser, plain_address, tmp_path):
    waveform = 0.7 * make_song(4, 2.0)["mixture"]
    soundfile.write(tmp_path / "song.wav", waveform.T.numpy(), 44100, "FLOAT")
    page = browser.new_page()
    page.set_default_timeout(120_000)
    page.goto(plain_address)
    check_stems(separated(page, tmp_path / "song.wav", "vocals"), waveform, "vocals")
    assert page.get_attribute(".song", "data-threads") == "1"
    page.close()


def test_from_disk_the_page_says_how_to_serve_it(browser, folder):
    page, errors = browser.new_page(), []
    page.on("pageerror", lambda error: errors.append(error))
    page.goto((folder / "index.html").as_uri())
    assert "python -m http.server" in page.inner_text("#disk")
    assert page.is_hidden("#drop") and not errors
    page.close()


def test_the_page_says_what_the_networks_may_be_used_for(page):
    assert "research use only" in (REPOSITORY / "pretrained/README.md").read_text()
    assert "The networks are for research use only." in page.inner_text("#drop")


def test_what_is_beyond_full_scale_is_said(page, tmp_path):
    loud = 8 * make_song(5, 2.0)["mixture"]
    soundfile.write(tmp_path / "loud.wav", loud.T.numpy(), 44100, "FLOAT")
    stems = separated(page, tmp_path / "loud.wav", "vocals")
    said = page.inner_text(".song .hint")
    number = int(said.removeprefix("beyond full scale, and cut off: ").removesuffix(" samples"))
    ends = sum(int(np.isin(np.round(stem * 32768), (-32768, 32767)).sum()) for stem in stems.values())
    assert 0 < number <= ends  # of these some are at full scale by themselves


def test_songs_of_one_name_stand_side_by_side(page, tmp_path):
    for name in ("a/song.wav", "b/song.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, np.zeros((4410, 2)), 44100)
    page.set_input_files("#pick", [tmp_path / "a/song.wav", tmp_path / "b/song.wav"])
    page.wait_for_function("document.querySelectorAll('.song').length === 2")
    assert page.locator(".song h2").all_text_contents() == ["song", "song 2"]


def test_without_the_network_there_is_a_sentence(page, tmp_path):
    page.route("**/vocals.onnx", lambda route: route.abort())
    soundfile.write(tmp_path / "short.wav", np.zeros((4410, 2)), 44100)
    page.set_input_files("#pick", tmp_path / "short.wav")
    page.wait_for_selector(".queue .failed")
    assert "the network cannot be loaded" in page.inner_text(".queue .state")


def test_what_is_no_song_is_a_sentence_and_the_next_song_comes_apart(page, tmp_path):
    (tmp_path / "letter.mp3").write_bytes(b"no audio at all")
    soundfile.write(tmp_path / "wide.wav", np.zeros((4410, 4)), 44100)
    soundfile.write(tmp_path / "short.wav", np.zeros((4410, 2)), 44100)
    page.set_input_files("#pick", [tmp_path / name for name in ("letter.mp3", "wide.wav", "short.wav")])
    page.wait_for_selector(".song")
    said = page.locator(".queue .failed .state").all_text_contents()
    assert "letter" in said[0] and "no audio" in said[0]
    assert "wide" in said[1] and "4 channels" in said[1]
    assert page.locator(".song h2").all_text_contents() == ["short"]


def test_a_song_can_be_given_up(page, tmp_path):
    soundfile.write(tmp_path / "long.wav", 0.1 * np.random.default_rng(0).standard_normal((44100 * 60, 2)), 44100)
    soundfile.write(tmp_path / "short.wav", np.zeros((4410, 2)), 44100)
    page.set_input_files("#pick", [tmp_path / "long.wav", tmp_path / "short.wav"])
    page.wait_for_function("document.querySelector('.queue .state')?.textContent.match(/%, .* left/)")
    page.click("[aria-label='Cancel long']")
    page.wait_for_selector(".song")
    assert page.locator(".song h2").all_text_contents() == ["short"]
    assert page.locator(".queue li").count() == 0


def test_the_stems_play(page, tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones((44100, 2)), 44100)
    separated(page, tmp_path / "short.wav", "vocals")
    page.click(".play")
    page.wait_for_function("Song.current.at > 0.2")
    page.wait_for_function(METER)
    page.click("[aria-label='Solo vocals']")
    assert "silent" in page.get_attribute("[data-stem=accompaniment]", "class")
    page.click("[aria-label='Solo vocals']")
    with page.expect_download() as download:
        page.click(".save")
    mix, _ = soundfile.read(download.value.path())
    assert np.abs(mix - 0.1).max() < 5e-5
