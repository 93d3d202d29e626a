from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from separation.runtime import LOG_SECONDS, Progress, clock, processors


class Screen(io.StringIO):
    """A terminal, or a log file, and a clock that stands still between the calls."""

    def __init__(self, is_terminal: bool):
        super().__init__()
        self.is_terminal, self.time = is_terminal, 0.0

    def isatty(self) -> bool:
        return self.is_terminal

    def now(self) -> float:
        return self.time

    def lines(self) -> list[str]:
        """What was shown, without what moves the cursor and the bar itself."""
        shown = re.split(r"[\r\n]", re.sub(r"\x1b\[\w", "", self.getvalue()))
        return [re.sub(r"\|.*\|", "", line).strip() for line in shown if line.strip()]


def run(screen: Screen, songs: int, seconds: float, steps: int = 20) -> list[float | None]:
    """Do songs of a length each, in steps of which the very first takes 20 times as long; give the times left."""
    left = []
    with Progress(songs, file=screen, now=screen.now) as progress:
        screen.time += seconds
        for _ in range(songs):
            for step in range(1, steps + 1):
                progress.within(step / steps)
                left.append((progress.left(), screen.time))
                screen.time += seconds / steps
            progress.done()
    return [(told, screen.time - time) for told, time in left]


def test_a_time_left_is_never_far_off():
    told = run(Screen(True), songs=5, seconds=10)
    assert told[0][0] is None  # of the first step nothing can be told
    assert len([left for left, _ in told if left is not None]) > 90
    assert all(left == pytest.approx(true, rel=0.1, abs=0.6) for left, true in told if left is not None)


def test_the_bar_of_a_batch_moves_within_a_song():
    screen = Screen(True)
    run(screen, songs=4, seconds=10)
    shares = [int(line.partition("%")[0]) for line in screen.lines()]
    assert shares == sorted(shares) and len(set(shares)) > 50
    assert any("1 of 4 songs, 0:2" in line for line in screen.lines())


def test_a_log_file_gets_a_line_now_and_then():
    screen = Screen(False)
    run(screen, songs=100, seconds=10)
    lines = screen.lines()
    assert "|" not in screen.getvalue()
    assert lines[0].startswith("0 of 100 songs after 0:1")
    assert 0.8 * 1010 / LOG_SECONDS < len(lines) <= 1 + 1010 / LOG_SECONDS
    assert re.fullmatch(r"(\d+) of 100 songs after \d+:\d\d, \d+:\d\d left", lines[-1])


def test_items_that_tell_nothing_of_themselves_have_a_time_left_when_some_have_ended():
    screen = Screen(False)
    progress = Progress(20, abreast=2, file=screen, now=screen.now)
    for number in range(1, 20):
        screen.time += 3
        progress.done()
        assert progress.left() == (None if number <= 4 else pytest.approx(3 * (20 - number)))


def test_time_left_counts_minutes_of_music_not_songs():
    screen = Screen(True)
    lengths, told = [10.0, 10.0, 10.0, 200.0], []
    with Progress(lengths, file=screen, now=screen.now) as progress:
        for length in lengths:
            for second in range(1, int(length) + 1):
                screen.time += 0.5
                progress.within(second)
                told.append((progress.left(), 115 - screen.time))
            progress.done(length)
    assert progress.share == 1
    assert all(left == pytest.approx(right, abs=1) for left, right in told if left is not None)
    assert len([left for left, _ in told if left is not None]) > 200


def test_a_line_is_printed_above_the_bar(capsys):
    screen = Screen(True)
    with Progress(2, file=screen, now=screen.now) as progress:
        progress.say("one is done")
    assert capsys.readouterr().out == "one is done\n"


def test_lengths_of_time():
    assert [clock(seconds) for seconds in (0, 59.6, 3600)] == ["0:00", "1:00", "1:00:00"]


def test_denormal_numbers_are_zero_in_all_of_torchs_threads():
    """Set after torch's threads have started, the flag holds in one of them."""
    code = "from separation.runtime import prepare_torch; prepare_torch(); import torch; torch.set_num_threads(2); "
    code += "print(int((torch.full((1 << 20,), 1e-39) * 1.0).count_nonzero()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process to a processor")
def test_processors_are_those_that_the_affinity_allows():
    """`os.cpu_count` counts the machine's, on which ONNX Runtime then starts threads that take turns on one."""
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
    code += "from separation.runtime import processors; print(processors())"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize(
    ("files", "right"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"job/task/cpu.max": "max 100000\n", "job/cpu.max": "300000 100000\n"}, 3),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 64),
    ],
)
def test_processors_are_no_more_than_the_quota_of_the_container(files, right, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "self").write_text("2:cpu,cpuacct:/job/task\n1:memory:/job\n0::/job/task\n")
    monkeypatch.setattr("separation.runtime.CGROUPS", tmp_path)
    monkeypatch.setattr("separation.runtime.OWN_CGROUPS", tmp_path / "self")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64), raising=False)
    assert processors() == right
