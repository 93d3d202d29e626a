from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from PIL import Image

from separation.audio.io import AudioWriter, write
from separation.errors import UserError
from separation.songs.page import CLOSING, OPENING, Page, fill_page
from separation.stems import STEMS

HOSTILE = "</script><img src=x onerror=\"document.title='pwned'\"> 100% #1? 'Füße' & 歌"


def add_song(page: Page, name: str, stems: tuple[str, ...] = STEMS, seconds: float = 1.0, suffix: str = ".wav") -> None:
    """Write stems, a tone each, and list them."""
    paths = {stem: page.folder / name.replace("/", "_") / f"{stem}{suffix}" for stem in stems}
    time = torch.arange(round(seconds * 22050)) / 22050
    for n, path in enumerate(paths.values(), start=1):
        write(path, 0.2 * torch.sin(440 * n * 2 * torch.pi * time)[None], 22050)
    page.add(name, paths)


def listed(page: Page) -> list[dict]:
    """The songs that the page has, as a browser finds them in it."""

    class Songs(HTMLParser):
        inside, text = False, ""

        def handle_starttag(self, tag, attributes):
            self.inside = ("id", "songs") in attributes

        def handle_data(self, data):
            self.text += data if self.inside else ""

        def handle_endtag(self, tag):
            self.inside = False

    parser = Songs()
    parser.feed(page.path.read_text(encoding="utf-8"))
    return json.loads(parser.text)


def test_title_artist_and_cover_of_a_song_are_listed(tmp_path):
    page, image = Page(tmp_path), io.BytesIO()
    Image.new("P", (900, 300)).save(image, "PNG")
    source, stem = tmp_path / "song.flac", tmp_path / "05/vocals.wav"
    stem.parent.mkdir()
    with AudioWriter(source, 22050, 1, bits="16", cover=image.getvalue()) as writer:
        writer.write(torch.zeros(1, 22050))
    with AudioWriter(stem, 22050, 1, tags={"title": "Lithium (vocals)", "artist": "Nobody"}) as writer:
        writer.write(torch.zeros(1, 22050))
    page.add("05", {"vocals": stem}, fresh=True, source=source)
    (song,) = listed(page)
    assert (song["title"], song["artist"], song["cover"]) == ("Lithium", "Nobody", "05/vocals.cover.jpg")
    with Image.open(tmp_path / song["cover"]) as cover:
        assert cover.size == (256, 85)
    write(source, torch.zeros(1, 22050), 22050)  # the song has no cover any more
    page.add("05", {"vocals": stem}, fresh=True, source=source)
    assert "cover" not in listed(page)[0] and not (tmp_path / "05/vocals.cover.jpg").exists()


@pytest.mark.parametrize("cover", [b"", b"\xff\xd8 no picture", b"\x89PNG\r\n\x1a\n cut"])
def test_a_cover_that_cannot_be_read_is_left_out(tmp_path, monkeypatch, cover):
    monkeypatch.setattr("separation.songs.page.read_cover", lambda path: cover)
    stem = tmp_path / "a/vocals.wav"
    write(stem, torch.zeros(1, 22050), 22050)
    page = Page(tmp_path)
    page.add("a", {"vocals": stem}, fresh=True, source=stem)
    assert "cover" not in listed(page)[0]


def names(page: Page) -> list[str]:
    return [song["name"] for song in listed(page)]


def test_a_song_is_listed_with_its_stems_and_their_pictures(tmp_path):
    page = Page(tmp_path)
    add_song(page, "My song", ("vocals", "bass"))
    (song,) = listed(page)
    assert song["name"] == "My song" and song["seconds"] == 1
    assert [stem["name"] for stem in song["stems"]] == ["vocals", "bass"]
    for stem in song["stems"]:
        assert stem["audio"] == f"My%20song/{stem['name']}.wav"
        assert stem["picture"] == f"My%20song/{stem['name']}.png"
        with Image.open(tmp_path / unquote(stem["picture"])) as picture:
            assert picture.mode == "L" and np.asarray(picture).max() > 100
    assert not list(tmp_path.rglob("*.partial"))


def test_any_name_is_text_and_its_links_lead_to_its_files(tmp_path):
    page = Page(tmp_path)
    add_song(page, HOSTILE, ("vocals",))
    (song,) = listed(page)
    assert song["name"] == HOSTILE
    assert (tmp_path / unquote(song["stems"][0]["audio"])).exists()
    assert not re.search(r"[^\w%./~-]", song["stems"][0]["audio"])
    assert "<img" not in page.path.read_text(encoding="utf-8").partition(OPENING)[2].partition(CLOSING)[0]


def test_later_runs_keep_the_songs_of_earlier_ones(tmp_path):
    add_song(Page(tmp_path), "b")
    add_song(Page(tmp_path), "A", ("vocals",))
    add_song(Page(tmp_path), "b", ("vocals", "drums"))
    page = Page(tmp_path)
    assert names(page) == ["A", "b"]
    assert [stem["name"] for stem in listed(page)[1]["stems"]] == ["vocals", "drums"]


def test_songs_whose_stems_are_gone_are_dropped(tmp_path):
    page = Page(tmp_path)
    for name in ("ä 1", "b", "c"):
        add_song(page, name, ("vocals",))
    shutil.rmtree(tmp_path / "b")
    add_song(Page(tmp_path), "c", ("vocals",))
    assert names(page) == ["c", "ä 1"]


def test_a_page_that_is_right_is_not_written_again(tmp_path):
    for name in ("a", "b"):
        add_song(Page(tmp_path), name, ("vocals",))
    before = (tmp_path / "index.html").stat()
    page = Page(tmp_path)
    for name in ("a", "b"):
        page.add(name, {"vocals": tmp_path / name / "vocals.wav"})
    after = (tmp_path / "index.html").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


LIST_MANY = """
import sys
from pathlib import Path
from separation.songs.page import Page

page = Page(Path(sys.argv[1]))
(page.folder / "a.wav").touch()
stems = [{"name": "a", "audio": "a.wav", "picture": "a.png"}]
for number in range(100):
    page.put({"name": f"{sys.argv[2]} {number}", "seconds": 1, "stems": stems})
"""


def test_two_processes_that_list_songs_on_one_page_lose_none(tmp_path):
    """The app and `separate --page`, say."""
    command = [sys.executable, "-c", LIST_MANY, str(tmp_path)]
    processes = [subprocess.Popen([*command, name], cwd=REPOSITORY) for name in "ab"]
    assert [process.wait() for process in processes] == [0, 0]
    assert sorted(names(Page(tmp_path))) == sorted(f"{name} {number}" for name in "ab" for number in range(100))


def replace_list(path: Path, songs: str) -> None:
    """Put other text in place of the list of songs of a page."""
    text = path.read_text(encoding="utf-8")
    first, last = text.index(OPENING) + len(OPENING), text.index(CLOSING, text.index(OPENING))
    path.write_text(text[:first] + songs + text[last:], encoding="utf-8")


@pytest.mark.parametrize(
    "songs", ["3", "[1]", '[{"name": "a"}]', '[{"name": 1, "seconds": 1, "stems": []}]', "[" * 9999]
)
def test_a_list_that_was_changed_is_refused(tmp_path, songs):
    add_song(Page(tmp_path), "a", ("vocals",))
    replace_list(tmp_path / "index.html", songs)
    with pytest.raises(UserError) as error:
        Page(tmp_path)
    assert error.value.code == "bad_page"


@pytest.mark.parametrize("part", ["audio", "picture", "cover"])
@pytest.mark.parametrize(
    "link",
    [
        *("../secret{}", "..%2Fsecret{}", "a/..%2f..%2Fsecret{}", "%2Fetc/secret{}", "//example.org/a{}"),
        *("https://example.org/a{}", "javascript:alert(1)//{}", "javascript%3Aalert(1)//{}", "data:text/html,a{}"),
        *("a%00{}", "\\u0001javascript:a{}", "a{}#.html", "a{}?b", "a.html", "a.svg", "", 3, None, float("nan")),
    ],
)
def test_a_page_whose_links_lead_elsewhere_is_refused(tmp_path, part, link):
    """Such a page may come with a folder of stems that someone was given."""
    page = Page(tmp_path)
    add_song(page, "a", ("vocals",))
    Image.new("RGB", (8, 8)).save(tmp_path / "a/vocals.cover.jpg")
    add_song(page, "a", ("vocals",))
    (song,) = listed(page)
    holder = song if part == "cover" else song["stems"][0]
    assert part in holder
    suffix = Path(holder[part]).suffix
    holder[part] = link.format(suffix) if isinstance(link, str) else link
    replace_list(page.path, json.dumps([song]))
    with pytest.raises(UserError) as error:
        Page(tmp_path)
    assert error.value.code == "bad_page"


@pytest.mark.parametrize("seconds", ["NaN", "-1", "1e400", "1" + "0" * 400, '"3"', "null"])
def test_a_page_whose_songs_have_no_length_is_refused(tmp_path, seconds):
    add_song(Page(tmp_path), "a", ("vocals",))
    (song,) = listed(Page(tmp_path))
    text = json.dumps({**song, "seconds": None}).replace("null", seconds)
    replace_list(tmp_path / "index.html", f"[{text}]")
    with pytest.raises(UserError) as error:
        Page(tmp_path)
    assert error.value.code == "bad_page"


def test_a_stem_made_anew_has_a_new_picture_though_the_clock_was_set_back(tmp_path):
    page = Page(tmp_path)
    add_song(page, "a", ("vocals",))
    path, picture = tmp_path / "a" / "vocals.wav", tmp_path / "a" / "vocals.png"
    before = picture.read_bytes()
    write(path, torch.zeros(1, 22050), 22050)
    os.utime(path, (0, 0))
    page.add("a", {"vocals": path}, fresh=True)
    assert picture.read_bytes() != before


def test_pictures_are_made_once_and_again_when_a_stem_is_newer(tmp_path):
    page = Page(tmp_path)
    add_song(page, "a", ("vocals",))
    stem, picture = tmp_path / "a/vocals.wav", tmp_path / "a/vocals.png"
    made = picture.stat().st_mtime_ns
    page.add("a", {"vocals": stem})
    assert picture.stat().st_mtime_ns == made
    os.utime(stem, ns=(made + 1, made + 1))
    page.add("a", {"vocals": stem})
    assert picture.stat().st_mtime_ns > made
    picture.unlink()
    page.add("a", {"vocals": stem})
    assert picture.exists()


def test_a_stem_that_is_no_audio_is_refused_and_the_page_stays(tmp_path):
    page = Page(tmp_path)
    add_song(page, "a", ("vocals",))
    (tmp_path / "b").mkdir()
    (tmp_path / "b/vocals.wav").write_text("no music")
    with pytest.raises(UserError, match=r"b.vocals\.wav"):
        page.add("b", {"vocals": tmp_path / "b/vocals.wav"})
    assert names(page) == ["a"]


@pytest.mark.parametrize("content", [b"<h1>My own page</h1>", b"\xff\xfe", OPENING.encode() + b'[{"name": "half'])
def test_an_index_of_another_kind_is_left_alone(tmp_path, content):
    (tmp_path / "index.html").write_bytes(content)
    with pytest.raises(UserError) as error:
        Page(tmp_path)
    assert error.value.code in ("foreign_page", "bad_page")
    assert (tmp_path / "index.html").read_bytes() == content


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    page = Page(tmp_path)
    (tmp_path / "index.html").mkdir()
    with pytest.raises(UserError, match=r"index\.html cannot be (written|read)"):
        add_song(page, "a", ("vocals",))


def test_a_hundred_songs_make_a_small_page_that_loads_nothing_from_elsewhere():
    stems = [{"name": stem, "audio": f"a/{stem}.wav", "picture": f"a/{stem}.png"} for stem in STEMS]
    page = fill_page([{"name": f"Song {n}", "seconds": 200, "stems": stems} for n in range(100)])
    assert len(page) < 100_000
    assert not re.search(r"https?:|url\(|@import|{{", page)


# What follows runs the page in a real browser.

AUDIO = "[...document.querySelectorAll('.current audio')]"
"""The audio elements of the song that is loaded, in JavaScript."""

SPREAD = f"""async (milliseconds) => {{
  let spread = 0;
  for (const end = performance.now() + milliseconds; performance.now() < end; ) {{
    const times = {AUDIO}.map((audio) => audio.currentTime);
    spread = Math.max(spread, Math.max(...times) - Math.min(...times));
    await new Promise((done) => setTimeout(done, 20));
  }}
  return spread;
}}"""
"""The most that the stems are apart within some milliseconds, in seconds."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A page of three songs, of which the last cannot be played."""
    page = Page(tmp_path_factory.mktemp("stems"))
    add_song(page, HOSTILE, seconds=60)
    add_song(page, "b", ("vocals", "bass"), seconds=2)
    add_song(page, "c", ("vocals",), seconds=1, suffix=".ogg")
    (page.folder / "c/vocals.ogg").write_text("no music any more")
    return page.folder


@pytest.fixture
def tab(browser, folder):
    """The page, opened from disk; whatever it throws fails the test."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    errors = []
    tab.on("pageerror", lambda error: errors.append(error))
    tab.goto((folder / "index.html").as_uri())
    yield tab
    tab.close()
    assert not errors


def card(tab, name: str):
    return tab.get_by_role("article", name=name, exact=True)


def play(tab, name: str = HOSTILE):
    """Play a song until it is under way, and give its card."""
    card(tab, name).get_by_role("button", name=f"Play {name}", exact=True).click()
    tab.wait_for_function(f"{AUDIO}.length && {AUDIO}.every((audio) => !audio.paused && audio.currentTime > 0.1)")
    return card(tab, name)


def heard(tab) -> dict[str, float]:
    """The stems that can be heard, and how loud."""
    found = tab.evaluate("""[...document.querySelectorAll('.current .stem')].map((row) => {
      const audio = row.querySelector('audio');
      return [row.dataset.stem, audio.muted ? 0 : audio.volume];
    })""")
    return {stem: volume for stem, volume in found if volume}


def times(tab) -> list[float]:
    return tab.evaluate(f"{AUDIO}.map((audio) => audio.currentTime)")


def test_it_plays_and_pauses(tab):
    song = play(tab)
    before = times(tab)
    assert len(before) == 4
    tab.wait_for_function(f"(before) => {AUDIO}.every((audio, n) => audio.currentTime > before[n] + 0.2)", arg=before)
    assert float(song.get_by_role("slider", name=f"Position in {HOSTILE}").input_value()) > 0.2
    song.get_by_role("button", name=f"Pause {HOSTILE}", exact=True).click()
    assert tab.evaluate(f"{AUDIO}.every((audio) => audio.paused)")
    assert max(times(tab)) - min(times(tab)) < 0.005


def test_stems_stay_in_step_and_come_back_into_it(tab):
    song = play(tab)
    assert tab.evaluate(SPREAD, 800) < 0.05
    song.locator(".picture").first.click(position={"x": 300, "y": 20})
    tab.wait_for_function(f"{AUDIO}.every((audio) => !audio.paused && !audio.seeking)")
    assert tab.evaluate(SPREAD, 800) < 0.05
    for astray in (0.06, -0.06, 1.0):
        tab.evaluate(f"(astray) => {{ {AUDIO}[2].currentTime += astray }}", astray)
        tab.wait_for_function(f"""() => {{
          const times = {AUDIO}.map((audio) => audio.currentTime);
          return {AUDIO}.every((audio) => !audio.paused) && Math.max(...times) - Math.min(...times) < 0.01;
        }}""")


def test_a_soloed_stem_is_heard_alone_and_others_can_join_it(tab):
    song = play(tab)
    assert heard(tab) == dict.fromkeys(STEMS, 1)
    song.get_by_role("button", name="Solo vocals").click()
    assert heard(tab) == {"vocals": 1}
    assert song.get_by_role("button", name="Solo vocals").get_attribute("aria-pressed") == "true"
    song.get_by_role("button", name="Solo drums").click()
    assert heard(tab) == {"vocals": 1, "drums": 1}
    song.get_by_role("button", name="Solo bass").click(modifiers=["Alt"])
    assert heard(tab) == {"bass": 1}
    song.get_by_role("button", name="Mute bass").click()
    assert heard(tab) == {}
    song.get_by_role("button", name="Solo bass").click()
    assert heard(tab) == {"vocals": 1, "drums": 1, "other": 1}


def test_each_stem_has_its_volume(tab):
    song = play(tab)
    slider = song.get_by_role("slider", name="Volume of drums")
    slider.fill("0.5")
    assert heard(tab) == {"vocals": 1, "drums": 0.25, "bass": 1, "other": 1}
    assert slider.get_attribute("aria-valuetext") == "-12 dB"
    slider.fill("0")
    assert "drums" not in heard(tab) and slider.get_attribute("aria-valuetext") == "off"
    slider.dblclick()
    assert heard(tab)["drums"] == 1


def test_the_keyboard_does_it_all(tab):
    tab.keyboard.press("Space")
    tab.wait_for_function(f"{AUDIO}.length && {AUDIO}.every((audio) => !audio.paused && audio.currentTime > 0)")
    tab.keyboard.press("Space")
    assert tab.evaluate(f"{AUDIO}.every((audio) => audio.paused)")
    tab.keyboard.press("0")
    assert times(tab) == [0, 0, 0, 0]
    tab.keyboard.press("ArrowRight")
    assert times(tab) == [5, 5, 5, 5]
    tab.keyboard.press("Shift+ArrowLeft")
    assert times(tab) == [4, 4, 4, 4]
    tab.keyboard.press("2")
    assert heard(tab) == {"drums": 1}
    tab.keyboard.press("2")
    tab.keyboard.press("Shift+Digit1")
    assert "vocals" not in heard(tab) and len(heard(tab)) == 3
    # On a button the space bar is that button's, on a slider it still plays.
    song = card(tab, HOSTILE)
    song.get_by_role("button", name="Mute vocals").focus()
    tab.keyboard.press("Space")
    assert len(heard(tab)) == 4 and tab.evaluate(f"{AUDIO}.every((audio) => audio.paused)")
    song.get_by_role("slider", name="Volume of vocals").focus()
    tab.keyboard.press("ArrowLeft")
    assert heard(tab)["vocals"] == pytest.approx(0.95**2) and times(tab) == [4, 4, 4, 4]
    tab.keyboard.press("Space")
    tab.wait_for_function(f"{AUDIO}.every((audio) => !audio.paused)")


def test_a_click_with_the_mouse_leaves_the_space_bar_to_the_song(tab):
    song = play(tab)
    song.get_by_role("button", name="Mute vocals").click()
    tab.keyboard.press("Space")
    assert tab.evaluate(f"{AUDIO}.every((audio) => audio.paused)") and "vocals" not in heard(tab)


def test_a_click_on_a_picture_goes_there(tab):
    song = card(tab, "b")
    picture = song.locator(".picture").last
    width = picture.bounding_box()["width"]
    picture.click(position={"x": width / 4, "y": 10})
    assert times(tab) == pytest.approx([0.5, 0.5], abs=0.02)
    assert tab.evaluate(f"{AUDIO}.every((audio) => audio.paused)")
    assert float(song.get_by_role("slider", name="Position in b").input_value()) == pytest.approx(0.5, abs=0.02)
    line = song.evaluate("(card) => card.style.getPropertyValue('--at')")
    assert float(line) == pytest.approx(0.25, abs=0.01)


def test_one_song_at_a_time_and_each_goes_on_where_it_was(tab):
    play(tab)
    card(tab, HOSTILE).get_by_role("slider", name=f"Position in {HOSTILE}").fill("3")
    play(tab, "b")
    assert tab.evaluate("[...document.querySelectorAll('audio')].filter((audio) => !audio.paused).length") == 2
    assert card(tab, HOSTILE).locator(".now").inner_text() == "0:03"
    play(tab)
    assert min(times(tab)) >= 3


def test_at_its_end_a_song_stops_and_starts_anew(tab):
    card(tab, "b").get_by_role("slider", name="Position in b").fill("1.8")
    card(tab, "b").get_by_role("button", name="Play b", exact=True).click()
    tab.wait_for_function(f"{AUDIO}.every((audio) => audio.paused && audio.currentTime > 1.9)")
    assert card(tab, "b").locator(".clock").inner_text() == "0:02 / 0:02"
    play(tab, "b")
    assert max(times(tab)) < 1.7


def test_what_cannot_be_played_is_said(tab):
    card(tab, "c").get_by_role("button", name="Play c", exact=True).click()
    alert = card(tab, "c").get_by_role("alert")
    alert.wait_for()
    assert "vocals" in alert.inner_text() and "does not play ogg" in alert.inner_text()
    assert card(tab, "c").get_by_role("button", name="Play c", exact=True).is_visible()
    play(tab, "b")


def test_names_are_shown_and_not_run(tab):
    assert card(tab, HOSTILE).get_by_role("heading", level=2).inner_text() == HOSTILE
    assert tab.title() == "Stems"


def test_every_control_and_picture_has_a_name(tab):
    unnamed = tab.evaluate("""[...document.querySelectorAll('main button, main input, main a, main img')].filter(
      (part) => !(part.ariaLabel || part.alt))""")
    assert unnamed == []
    link = card(tab, "b").get_by_role("link", name="Download vocals as wav")
    assert link.get_attribute("href") == "b/vocals.wav"


@pytest.mark.parametrize("width", [320, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(browser, folder, scheme, width):
    tab = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    tab.goto((folder / "index.html").as_uri())
    tab.evaluate("document.getElementById('search').hidden = false")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate("Math.min(...[...document.querySelectorAll('.volume')].map((v) => v.offsetWidth))") >= 70
    colours = tab.evaluate("""() => {
      const { backgroundColor, color } = getComputedStyle(document.documentElement);
      return [backgroundColor, color];
    }""")
    page, ink = (sum(map(int, re.findall(r"\d+", colour))) for colour in colours)
    assert (page - ink if scheme == "light" else ink - page) > 400
    tab.close()
