from __future__ import annotations

import math

import pytest
import torch
from networks import BandSplit, random_network
from sounds import read

from separation.audio.formats import AudioFile
from separation.audio.io import write
from separation.errors import UserError
from separation.inference.separator import Separator
from separation.songs.outputs import StemFormat
from separation.songs.render import Segment, render

STEMS = ("vocals", "accompaniment")


@pytest.mark.parametrize(
    ("text", "start", "end", "name"),
    [
        ("0:30-1:10", 30, 70, "0.30-1.10"),
        ("0:05.25 - 90", 5.25, 90, "0.05_25-1.30"),
        ("1:02:03-", 3723, math.inf, "1.02.03-end"),
        ("-100", 0, 100, "0.00-1.40"),
        ("59.9999-61.25", 59.9999, 61.25, "1.00-1.01_25"),
        ("0-3599.9996", 0, 3599.9996, "0.00-1.00.00"),
    ],
)
def test_segments_are_written_as_players_show_time(text, start, end, name):
    segment = Segment.parse(text)
    assert (segment.start, segment.end, segment.name) == (start, end, name)


@pytest.mark.parametrize("text", ["", "-", "0:30", "1:10-0:30", "3-3", "a-b", "1:2:3:4-", "0:30-1:10-2", "-inf"])
def test_what_is_no_segment_is_refused(text):
    with pytest.raises(UserError, match="--segment"):
        Segment.parse(text)


@pytest.mark.parametrize("averaged", [False, True])
@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize(("text", "start", "end"), [("0:05-0:07.5", 5, 7.5), ("0:09-", 9, 12), ("0-0:01", 0, 1)])
def test_a_segment_is_what_it_is_within_the_whole_song(tmp_path, averaged, rate, text, start, end):
    song = 0.2 * torch.randn(2, 12 * rate, generator=torch.Generator().manual_seed(0))
    write(tmp_path / "song.wav", song, rate, "32f")
    separator = Separator(random_network(), precision="fp32")
    separator = Separator([separator.network] * 2) if averaged else separator
    told, stems = [], {}
    for name, segment in (("whole", None), ("part", Segment.parse(text))):
        paths = {stem: tmp_path / name / f"{stem}.wav" for stem in STEMS}
        file, form = AudioFile(tmp_path / "song.wav"), StemFormat("wav", "32f")
        report = render(separator, file, paths, form, lambda *numbers: told.append(numbers), segment)
        stems[name] = {stem: read(path)[0] for stem, path in paths.items()}
    assert report.seconds == end - start
    assert told[-1] == ((end - start) * rate, (end - start) * rate)
    for stem in STEMS:
        whole = stems["whole"][stem][:, round(start * rate) : round(end * rate)]
        error = (stems["part"][stem] - whole).square().mean() / whole.square().mean()
        # At other rates and speeds frames lie as in the song to the sample only.
        assert error < (1e-9 if rate == 44100 and not averaged else 1e-3)
    torch.testing.assert_close(
        sum(stems["part"].values()), song[:, round(start * rate) : round(end * rate)], atol=1e-6, rtol=0
    )


def test_no_more_is_read_than_the_segment_needs_and_one_past_the_end_is_refused(tmp_path):
    write(tmp_path / "song.wav", torch.randn(2, 44100 * 20) / 8, 44100)
    content = (tmp_path / "song.wav").read_bytes()
    (tmp_path / "song.wav").write_bytes(content[: len(content) * 3 // 4])  # whole to 0:15
    paths = {stem: tmp_path / "stems" / f"{stem}.wav" for stem in STEMS}

    def separate(text: str):
        return render(
            Separator(BandSplit(2000)),
            AudioFile(tmp_path / "song.wav"),
            paths,
            StemFormat(),
            segment=Segment.parse(text),
        )

    assert separate("0:01-0:03").seconds == 2
    (tmp_path / "song.wav").write_bytes(content)
    for path in paths.values():
        path.unlink()
    with pytest.raises(UserError, match="the song ends before --segment 1:00- begins"):
        separate("1:00-")
    with pytest.raises(UserError, match="is too short"):
        separate("0-0.00001")
    assert not (tmp_path / "stems" / "vocals.wav").exists()
