"""The folder in a browser: a song comes apart there into the stems that the `Separator` makes of it."""

from __future__ import annotations

import base64
import io
import shutil
import threading

import numpy as np
import pytest
import soundfile
import torch
from music import make_song

from separation.errors import UserError
from separation.network.separator import Separator
from separation.stems import STEMS

pytest.importorskip("onnx")

READ = """async () => Object.fromEntries(await Promise.all([...document.querySelectorAll(".stem")].map(async (row) => {
    const bytes = new Uint8Array(await (await fetch(row.querySelector(".download").href)).arrayBuffer());
    let text = "";
    for (let n = 0; n < bytes.length; n += 32768) text += String.fromCharCode(...bytes.subarray(n, n + 32768));
    return [row.dataset.stem, btoa(text)];
})))"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Where the folder is served."""
    from separation.web.build import build
    from separation.web.serve import make_server

    if not shutil.which("npm"):
        pytest.skip("there is no npm here")
    folder = tmp_path_factory.mktemp("web")
    try:
        build(folder)
    except UserError as error:
        if "npm" not in str(error):
            raise
        pytest.skip(str(error))
    server = make_server(folder, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


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
    stems = separated(page, tmp_path / "a song.wav", network)
    expected = Separator.load(stems=STEMS if network == "all" else ("vocals", "accompaniment"))
    expected.dtype = torch.float32  # as in a browser
    for stem, signal in expected(waveform, 44100).items():
        assert stems[stem].shape == signal.shape
        assert np.abs(stems[stem] - signal.numpy()).max() < 1e-4
    assert np.abs(sum(stems.values()) - waveform.numpy()).max() < len(stems) * 2e-5
    assert page.locator(".stem img").count() == len(stems)
    assert page.get_attribute(".stem .download", "download") == "a song - vocals.wav"


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
    page.wait_for_function("document.querySelector('.queue .state')?.textContent.includes('%')")
    page.click("[aria-label='Cancel long']")
    page.wait_for_selector(".song")
    assert page.locator(".song h2").all_text_contents() == ["short"]
    assert page.locator(".queue li").count() == 0


def test_the_stems_play(page, tmp_path):
    soundfile.write(tmp_path / "short.wav", 0.1 * np.ones((44100, 2)), 44100)
    separated(page, tmp_path / "short.wav", "vocals")
    page.click(".play")
    page.wait_for_function("document.querySelector('.stem audio').currentTime > 0.2")
