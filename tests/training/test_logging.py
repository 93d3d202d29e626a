from __future__ import annotations

import json
import math
import time

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from separation.audio.stft import Spectral, SpectralSettings
from separation.training import logging
from separation.training.config import Config
from separation.training.logging import RunLog, picture


def scalars(output) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(output / "events")).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set, in place of the machine's."""
    now = [0.0]
    monkeypatch.setattr(logging.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(RunLog, "every", 2)
    monkeypatch.setattr(logging, "FIRST_POINTS", ())
    return now


def test_the_share_of_time_spent_waiting_for_data_is_reported(tmp_path, clock):
    def batches():
        for batch in range(4):
            clock[0] += 1.0
            yield batch

    writer = RunLog(tmp_path, Config(), 0)
    for step, batch in enumerate(writer.timed(batches()), start=1):
        assert batch == step - 1
        clock[0] += 3.0
        writer.losses(step, {})
    writer.close()
    found = scalars(tmp_path)
    # The work on the second batch of a pair is noted with the pair that follows.
    assert [value for _, value in found["time/share waiting for data"]] == pytest.approx([2 / 5, 2 / 8])
    assert found["time/seconds per step"] == [(2, 5 / 2), (4, 8 / 2)]


def test_losses_are_means_over_the_steps_that_had_them(tmp_path, clock):
    writer = RunLog(tmp_path, Config(), 0)
    for step, terms in enumerate([{"a": 1.0, "b": 5.0}, {"a": 2.0}, {"a": 4.0}, {"a": 6.0}], start=1):
        writer.losses(step, terms)
    writer.close()
    found = scalars(tmp_path)
    assert found["loss/a"] == [(2, 1.5), (4, 5.0)]
    assert found["loss/b"] == [(2, 5.0)]


def test_the_first_losses_come_soon(tmp_path, monkeypatch):
    """Nobody should wait fifty steps to see whether a run learns."""
    log = RunLog(tmp_path, Config(), 0)
    for step in range(1, 101):
        log.losses(step, {"a": float(step)})
    log.close()
    points = [json.loads(line) for line in (tmp_path / logging.HISTORY).read_text().splitlines()]
    assert [point["step"] for point in points] == [1, 2, 5, 10, 20, 50, 100]
    assert points[2]["losses"] == {"a": 4.0}  # the mean of 3, 4 and 5


def test_a_run_taken_up_again_writes_over_what_came_after_its_checkpoint(tmp_path, clock):
    for first, last, value in ((1, 6, 1.0), (5, 8, 2.0)):  # stopped after 6 steps, taken up after 4
        writer = RunLog(tmp_path, Config(), first - 1)
        for step in range(first, last + 1):
            writer.losses(step, {"a": value})
        writer.close()
    assert scalars(tmp_path)["loss/a"] == [(2, 1.0), (4, 1.0), (6, 2.0), (8, 2.0)]


def test_a_history_that_is_no_text_any_more_stops_no_run(tmp_path):
    (tmp_path / logging.HISTORY).write_bytes(b'{"step": 1}\n\xff\xfe\n')
    RunLog(tmp_path, Config(), 2).close()
    assert (tmp_path / logging.HISTORY).read_text() == '{"step": 1}\n'


def test_a_picture_shows_a_tone_as_one_bright_line_that_rises_with_its_pitch():
    settings = SpectralSettings()
    time = torch.arange(settings.sample_rate) / settings.sample_rate
    rows = []
    for frequency in (500, 4000):
        tone = 0.5 * torch.sin(2 * math.pi * frequency * time).expand(2, -1)
        image = picture(Spectral(settings)(tone), settings.sample_rate)
        channels, height, frames = image.shape
        assert (channels, frames) == (3, settings.frames(settings.sample_rate))
        assert image.min() >= 0 and image.max() <= 1
        brightness = image.sum(dim=0)[:, frames // 2]
        rows.append(int(brightness.argmax()))
        assert (brightness > 0.8 * brightness.max()).sum() < height / 10
    assert rows[0] > rows[1]  # row 0 is at the top


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_says_so_once_and_without_a_trace(tmp_path, clock, capsys, monkeypatch):
    """TensorBoard writes in a thread of its own, whose error its next caller hears of."""

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    writer = RunLog(tmp_path, Config(), 0)
    monkeypatch.setattr(RecordWriter, "write", full)
    for step in range(1, 200):
        writer.losses(step, {"a": 1.0})
        if not writer.writer:
            break
        time.sleep(0.01)
    writer.close()
    said = capsys.readouterr()
    assert said.out.count("history and events are no longer written") == 1
    assert "Traceback" not in said.err
