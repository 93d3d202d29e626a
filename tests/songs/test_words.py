from __future__ import annotations

from pathlib import Path

import pytest

from separation.inference.weights import pretrained
from separation.songs.render import RenderReport, Tally
from separation.songs.words import levels, opening, place, result, spell


def test_a_song_is_one_line():
    loud, silent = Tally(8, 2.0, 3), Tally(8)
    report = RenderReport(seconds=210.2, elapsed=6.3, gain=1.0, stems={"vocals": Tally(8, 2.0), "bass": silent})
    line = "3:30 of music in 6 s -> outputs/lithium/ (vocals, bass)"
    assert result(report, Path("outputs/lithium/*.wav"), ("vocals", "bass")) == line
    assert levels(report) == "vocals -6.0 dBFS, bass -inf dBFS"
    report = RenderReport(seconds=210.2, elapsed=6.3, gain=0.5, stems={"vocals": loud, "bass": silent})
    said = result(report, Path("outputs/lithium/*.wav"), ("vocals", "bass"))
    assert said.startswith(line) and "0.500 times as loud" in said and "3 samples" in said


@pytest.mark.parametrize(
    ("files", "said"),
    [("a/b/*.wav", "a/b/"), ("a/b - *.wav", "a/b - *.wav"), ("a/*/b.wav", "a/*/b.wav")],
)
def test_a_folder_stands_for_the_stems_if_it_is_theirs(files, said):
    assert place(Path(files)) == said


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.04, "0.0 s"), (6.4, "6 s"), (99.4, "99 s"), (125, "2:05 min"), (3723, "1:02:03 h")]
)
def test_times_are_told_as_people_tell_them(seconds, said):
    assert spell(seconds) == said


def test_weights_and_device_are_said_at_the_start():
    assert opening([pretrained("all")], "CPU, 2 threads", 1) == (
        "1 song; weights all.safetensors (shipped); CPU, 2 threads"
    )
    assert "weights my/best.safetensors; CPU" in opening([Path("my/best.safetensors")], "CPU, 1 thread", 3)
    twice = opening([pretrained("vocals"), pretrained("all"), pretrained("vocals")], "CPU, 1 thread", 1)
    assert "weights vocals.safetensors (shipped), twice, and all.safetensors (shipped); CPU" in twice
    assert "weights all.safetensors (shipped), 3 times; CPU" in opening([pretrained("all")] * 3, "CPU, 1 thread", 1)
