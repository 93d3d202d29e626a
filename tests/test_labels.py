"""benchmarks/labels.py: what its runs are, that they can be stopped, and what is read off their scores."""

from __future__ import annotations

import asyncio
import csv
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, make_stems, write_files
from songs import TINY, add_track, make_song, make_store

from benchmarks import labels
from benchmarks.label_table import Comparison, Run, write_tables
from separation.checkpoint import read_facts
from separation.config import Config, load_config
from separation.errors import UserError
from separation.pools import open_pools
from separation.stems import ACCOMPANIMENT, MIXTURE

VARIANTS = "variants.yaml"
SUPERVISED = ["supervised_target", "supervised_rest"]


@pytest.fixture(scope="module")
def music(tmp_path_factory) -> SimpleNamespace:
    """A config of a run of a second on made-up music with and without labels, and a folder of songs to score."""
    folder = tmp_path_factory.mktemp("music")
    labelled = make_store(folder / "labelled", train=4, valid=1)
    unlabelled = folder / "unlabelled"
    add_track(unlabelled, TINY, "song", {MIXTURE: make_song(10, 2, TINY.sample_rate)[MIXTURE]})
    add_track(unlabelled, TINY, "playback", {ACCOMPANIMENT: make_song(11, 2, TINY.sample_rate)[ACCOMPANIMENT]})
    settings = {
        "spectral": {"sample_rate": TINY.sample_rate, "n_fft": TINY.n_fft, "hop": TINY.hop},
        "data": {
            "stores": {str(labelled): 1, str(unlabelled): 0.5},
            "crop_frames": 16,
            "batch_size": 2,
            "unlabelled_batch_size": 1,
            "workers": 0,
        },
        "generator": {"zones": [[32, 2], [96, 8]], "widths": [6, 8]},
        "discriminator": {"widths": [4, 8], "scales": 2},
        "schedule": {"steps": 4, "warmup": 1, "precision": "fp32", "unlabelled_every": 2},
    }
    config = folder / "labels.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    for seed, name in enumerate(("eins", "zwei")):
        stems = {
            stem: signal[:1] for stem, signal in make_stems(seed, 2.0, TINY.sample_rate).items()
        }  # museval is slow
        write_files(folder / "songs" / "valid" / name, stems, TINY.sample_rate)
    return SimpleNamespace(config=config, labelled=str(labelled), unlabelled=str(unlabelled), songs=folder / "songs")


def settings_of(run: Run, music: SimpleNamespace) -> Config:
    """The settings that train.py makes of a run's overrides."""
    overrides = labels.overrides(run, load_config(music.config), [music.labelled])
    return load_config(music.config, labels.as_options(overrides))


def test_the_grid_repeats_some_counts_and_finishes_the_first_seed_first():
    runs = labels.grid([20, 0, 5], repeated=[5], seeds=3)
    assert runs == [
        Run(0, True), Run(5, False), Run(5, True), Run(20, False), Run(20, True),
        Run(5, False, 1), Run(5, True, 1), Run(5, False, 2), Run(5, True, 2),
    ]  # fmt: skip


def test_the_variants_of_the_repository_change_its_config():
    configs = REPOSITORY / "configs"
    unchanged = load_config(configs / "labels.yaml")
    variants = labels.read_variants(configs / "labels_variants.yaml", configs / "labels.yaml")
    for changes in variants.values():
        assert load_config(configs / "labels.yaml", labels.as_options(changes)) != unchanged


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"variants.yaml must hold variants with their settings"),
        ("- losses.teacher", r"variants.yaml must hold variants with their settings"),
        ("no teacher: {}", r"variants.yaml must hold variants with their settings"),
        ("no teacher: {losses.tacher: 0}", r"variants.yaml, 'no teacher', on top of \S+: unknown key losses.tacher"),
        ("no teacher: {losses.teacher: off}", r"on top of \S+: losses.teacher must be a number, not False"),
        ("no teacher: {", r"cannot read the variants \S+: while parsing"),
    ],
)
def test_variants_that_cannot_be_are_one_sentence(write, music, text, sentence):
    with pytest.raises(UserError, match=sentence):
        labels.read_variants(write(text, VARIANTS), music.config)


def test_a_run_lies_in_a_folder_that_any_system_can_have():
    assert Run(5, True).name == "semi-supervised-5-seed-0"
    assert Run(5, True, 1, "without: the/Teacher? ").name == "semi-supervised-5-seed-1-without-the-teacher"


def test_both_columns_differ_in_the_unlabelled_music_alone(music):
    without, having = settings_of(Run(2, False, 1), music), settings_of(Run(2, True, 1), music)
    assert without.data.stores == {music.labelled: 1}
    assert having.data.stores == {music.labelled: 1, music.unlabelled: 0.5}
    assert [name for name, weight in vars(without.losses).items() if weight] == SUPERVISED
    assert having.losses == load_config(music.config).losses
    assert (without.data.remaining, having.data.remaining) == ("drop", "mixture")
    for settings in (without, having):
        assert (settings.seed, settings.data.labelled, settings.data.labelled_seed) == (1, 2, 1)
        assert (settings.schedule.validate_every, settings.schedule.softness) == (4, ())
    assert (without.generator, without.schedule) == (having.generator, having.schedule)


def test_supervised_runs_see_their_labelled_songs_and_nothing_else(music):
    settings = settings_of(Run(2, False), music)
    pools = open_pools(settings.targets, settings.data, settings.spectral, 4000)
    assert (len(pools.labelled), len(pools.rests), len(pools.mixtures)) == (2, 2, 2)


def test_without_labels_every_step_learns_from_unlabelled_music(music):
    assert settings_of(Run(0, True), music).schedule.unlabelled_every == 1
    assert settings_of(Run(2, True), music).schedule.unlabelled_every == 2


@pytest.mark.parametrize("seed", range(3))
def test_few_labelled_songs_are_among_the_many_in_both_columns(music, seed):
    songs = {}
    for run in (Run(count, unlabelled, seed) for count in (1, 2, 3) for unlabelled in (False, True)):
        settings = settings_of(run, music)
        songs[run] = set(open_pools(settings.targets, settings.data, settings.spectral, 4000).labelled_songs)
        assert len(songs[run]) == run.labels
    for count in (1, 2, 3):
        assert songs[Run(count, False, seed)] == songs[Run(count, True, seed)]
    assert songs[Run(1, True, seed)] < songs[Run(2, True, seed)] < songs[Run(3, True, seed)]


def test_a_store_with_songs_of_both_kinds_is_refused(music, tmp_path):
    config = load_config(music.config)
    assert {store: len(songs) for store, songs in labels.find_labelled(config).items()} == {music.labelled: 4}
    store = make_store(tmp_path / "both", train=1, valid=0)
    add_track(store, TINY, "song", {MIXTURE: make_song(10, 2, TINY.sample_rate)[MIXTURE]})
    with pytest.raises(UserError, match=r"both has songs with isolated vocals and songs without"):
        labels.find_labelled(load_config(music.config, [f"data.stores={{{store}: 1}}"]))


@pytest.fixture
def scores():
    """Made-up scores of three songs; the gains of each song are known."""
    few, many = {"a": 1.0, "b": 2.0, "c": 6.0}, {"a": 3.0, "b": 4.0, "c": 8.0}

    def plus(songs, *gains):
        return {"vocals": {song: sdr + gain for (song, sdr), gain in zip(songs.items(), gains, strict=True)}}

    return {
        Run(0, False): {"vocals": {"a": -4.0, "b": -3.0, "c": -5.0}},
        Run(5, False, 0): plus(few, 0, 0, 0),
        Run(5, False, 1): plus(few, 1, 1, 1),
        Run(5, True, 0): plus(few, 1, 2, 3),
        Run(5, True, 1): plus(few, 4, 3, 2),
        Run(20, False): plus(many, 0, 0, 0),
        Run(20, True): plus(many, 1, 1, 1),
        Run(5, True, 0, "no teacher"): plus(few, 1, 1, 1),
    }


def rows(table: str) -> dict[str, list[str]]:
    """The rows of a Markdown table by their first cell."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {first: others for first, *others in cells}


def test_the_table_has_medians_means_and_paired_gains(scores):
    grid, claims = Comparison(scores, "vocals").table().split("Few labelled songs")
    found = rows(grid)
    assert found["0"] == ["-, 0", "-4.00", "-", "-4.00", "-", "-"]
    # With five labels the medians are 2 and 3 without, 4 and 5 with, and each song gains 2.5 - 0.5 = 2.
    medians, means = ["2.50 (2.00 to 3.00)", "4.50 (4.00 to 5.00)"], ["3.50 (3.00 to 4.00)", "5.50 (5.00 to 6.00)"]
    assert found["5"] == ["2, 2", *medians, *means, "+2.00 ± 0.00"]
    assert found["20"] == ["1, 1", "4.00", "5.00", "5.00", "6.00", "+1.00 ± 0.00"]
    # Five with music are 0.5 better than twenty without; twenty, the most, are held against themselves.
    assert rows(claims)["5"] == ["20", "4.50 (4.00 to 5.00)", "4.00", "+0.50 ± 0.00"]
    assert rows(claims)["20"] == ["20", "5.00", "4.00", "+1.00 ± 0.00"]


def test_the_standard_error_is_over_songs(scores):
    found = rows(Comparison(scores, "vocals").variants())
    assert list(found)[2:] == ["unchanged", "no teacher", "supervised"]
    error = np.std([0, 1, 2], ddof=1) / np.sqrt(3)
    assert found["unchanged"] == ["1", "4.00", "5.00", ""]
    assert found["no teacher"] == ["1", "3.00", "4.00", f"-1.00 ± {error:.2f}"]
    assert found["supervised"] == ["1", "2.00", "3.00", f"-2.00 ± {error:.2f}"]


def test_variants_are_held_against_the_unchanged_runs_of_their_seeds(scores):
    scores[Run(5, True, 1, "no teacher")] = scores[Run(5, True, 0)]
    scores[Run(5, True, 1, "more noise")] = scores[Run(5, True, 1)]
    scores[Run(5, True, 2, "no teacher")] = {"vocals": dict.fromkeys("abc", 99.0)}  # nothing to hold it against yet
    found = rows(Comparison(scores, "vocals").variants())
    assert found["unchanged"] == ["2", "4.50 (4.00 to 5.00)", "5.50 (5.00 to 6.00)", ""]
    # Averaged over seeds the songs have 2, 3.5 and 8, and unchanged 3.5, 4.5 and 8.5: 1.5, 1 and 0.5 more.
    error = np.std([1.5, 1, 0.5], ddof=1) / np.sqrt(3)
    assert found["no teacher"] == ["2", "3.50 (3.00 to 4.00)", "4.50 (4.00 to 5.00)", f"-1.00 ± {error:.2f}"]
    assert found["more noise"] == ["1", "5.00", "6.00", "+0.00 ± 0.00"]
    assert found["supervised"] == ["2", "2.50 (2.00 to 3.00)", "3.50 (3.00 to 4.00)", "-2.00 ± 0.00"]


def test_a_song_that_some_run_has_no_score_of_is_left_out_of_all(scores):
    del scores[Run(20, True)]["vocals"]["c"]
    comparison = Comparison(scores, "vocals")
    assert comparison.songs == ["a", "b"]
    assert rows(comparison.table().split("Few")[0])["20"] == ["1, 1", "3.50", "4.50", "3.50", "4.50", "+1.00 ± 0.00"]


def test_tables_can_be_written_after_any_number_of_runs(scores, tmp_path):
    for count in range(2, len(scores) + 1):
        write_tables(tmp_path, dict(list(scores.items())[:count]), "In no time.")
        assert (tmp_path / "variants.md").exists() == (count == len(scores))
        assert (tmp_path / "table.md").read_text(encoding="utf-8").endswith("\n\nIn no time.\n")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * len(scores)
    assert lines[-1] == {
        "run": "semi-supervised-5-seed-0-no-teacher", "labels": "5", "unlabelled": "yes", "seed": "0",
        "variant": "no teacher", "song": "c", "source": "vocals", "sdr": "7.000",
    }  # fmt: skip


def command_line(music: SimpleNamespace, output: Path, *more: str) -> list[str | Path]:
    where = ["--config", music.config, "--dataset", "FOLDER", "--root", music.songs, "--output", output]
    return [*where, "--labels", "2", "--repeat", *more]


@pytest.fixture(scope="module")
def trained(music, run, tmp_path_factory) -> Path:
    """The smallest grid, trained and scored by the command line."""
    output = tmp_path_factory.mktemp("grid")
    result = run("-m", "benchmarks.labels", *command_line(music, output))
    assert result.returncode == 0, result.stderr
    assert "2/2" in result.stderr
    assert result.stdout.startswith("## vocals")
    return output


def test_the_grid_is_trained_scored_and_told(trained, music):
    for run in (Run(2, False), Run(2, True)):
        config, facts = read_facts(trained / run.name / "best.safetensors")
        assert config == settings_of(run, music)
        assert facts["step"] == 4 and "softness" not in facts
    with (trained / "scores.csv").open(encoding="utf-8", newline="") as file:
        found = {(line["run"], line["source"], line["song"]) for line in csv.DictReader(file)}
    names = ("mixture-0-seed-0", "supervised-2-seed-0", "semi-supervised-2-seed-0")
    sources = ("vocals", ACCOMPANIMENT)
    assert found == {(name, source, song) for name in names for source in sources for song in ("eins", "zwei")}
    table = (trained / "table.md").read_text(encoding="utf-8")
    assert "## accompaniment" in table and "minutes (semi-supervised)" in table
    assert (trained / "plot.png").exists() and not (trained / "variants.md").exists()


def call_main(monkeypatch, *arguments: str | Path) -> None:
    monkeypatch.setattr("sys.argv", ["labels.py", *map(str, arguments)])
    labels.main()


def change(music: SimpleNamespace, folder: Path, section: str, **values) -> SimpleNamespace:
    """The same music with another config."""
    settings = yaml.safe_load(music.config.read_text(encoding="utf-8"))
    settings[section] |= values
    changed = SimpleNamespace(**{**vars(music), "config": folder / "other.yaml"})
    changed.config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    assert load_config(changed.config) != load_config(music.config)
    return changed


def test_finished_runs_are_not_trained_again(trained, music, monkeypatch, capsys, tmp_path):
    """Not even where a setting has changed that no weight depends on."""

    def refuse(*arguments):
        raise AssertionError("a run was started")

    monkeypatch.setattr(labels, "call", refuse)
    (trained / "table.md").unlink()
    call_main(monkeypatch, *command_line(change(music, tmp_path, "data", workers=3), trained))
    assert "## vocals" in capsys.readouterr().out
    assert (trained / "table.md").exists()


def test_runs_of_other_settings_are_not_taken_for_finished(trained, music, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="supervised-2-seed-0 was trained with other settings"):
        call_main(monkeypatch, *command_line(change(music, tmp_path, "schedule", learning_rate=1e-5), trained))


def test_variants_are_trained_with_their_settings_and_the_runs_they_are_held_against(
    trained, music, monkeypatch, write, tmp_path
):
    started = {}

    async def copy(folder, train, test):
        started[folder.name] = load_config(music.config, train[train.index("--set") + 1 :])
        shutil.copytree(trained / "supervised-2-seed-0", folder)

    monkeypatch.setattr(labels, "carry_out", copy)
    variants = write("quiet: {losses.identity: 0, data.gain: [1, 1]}\nloud: {losses.exchange: 5}", VARIANTS)
    more = ["--variants", variants, "--at", "2", "--variant-seeds", "2"]
    call_main(monkeypatch, *command_line(music, tmp_path / "runs", *more))
    assert list(started) == [Run(2, which, seed).name for seed in (0, 1) for which in (False, True)] + [
        Run(2, True, seed, name).name for seed in (0, 1) for name in ("quiet", "loud")
    ]
    unchanged = started["semi-supervised-2-seed-1"]
    assert unchanged == settings_of(Run(2, True, 1), music)
    losses = replace(unchanged.losses, identity=0)
    expected = replace(unchanged, losses=losses, data=replace(unchanged.data, gain=(1, 1)))
    assert started["semi-supervised-2-seed-1-quiet"] == expected
    table = rows((tmp_path / "runs" / "variants.md").read_text(encoding="utf-8").split("## accompaniment")[0])
    assert {name: cells[0] for name, cells in list(table.items())[2:]} == {
        "unchanged": "2", "quiet": "2", "loud": "2", "supervised": "2",
    }  # fmt: skip


def test_variants_do_not_share_a_folder(music, monkeypatch, write, tmp_path):
    variants = write("no teacher: {losses.teacher: 0}\nNo teacher!: {losses.teacher: 1}", VARIANTS)
    with pytest.raises(UserError, match="has two names that differ in nothing but case and punctuation"):
        call_main(monkeypatch, *command_line(music, tmp_path / "runs", "--variants", variants))


def test_an_unfinished_run_is_taken_up_again_and_its_time_added_up(monkeypatch, tmp_path):
    called = []

    async def note(log, script, *arguments):
        called.append((script.name, "--resume" in arguments))
        if script.name == "test.py":
            (tmp_path / "scores.partial").mkdir()

    monkeypatch.setattr(labels, "call", note)
    (tmp_path / "last.pt").touch()
    (tmp_path / "minutes.txt").write_text("7.5", encoding="utf-8")
    asyncio.run(labels.carry_out(tmp_path, [], []))
    assert called == [("train.py", True), ("test.py", False)]
    assert labels.read_minutes(tmp_path) == pytest.approx(7.5, abs=0.1)
    assert (tmp_path / "scores").is_dir()


SLEEPS = """
import os, pathlib, sys, time
process = pathlib.Path(sys.argv[1])
process.with_suffix(".new").write_text(str(os.getpid()))
process.with_suffix(".new").rename(process)
time.sleep(60)
"""

FAILS = """
import pathlib, sys, time
while not pathlib.Path(sys.argv[1]).exists():
    time.sleep(0.01)
sys.exit("too loud")
"""


@pytest.fixture
def runs(tmp_path) -> dict[str, tuple[Path, Path, Path]]:
    """What `call` takes to run a script that would sleep for a minute, and one that fails as soon as it sleeps."""
    calls = {}
    for name, text in (("sleeping", SLEEPS), ("failing", FAILS)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "script.py").write_text(text, encoding="utf-8")
        calls[name] = (tmp_path / name / "log.txt", tmp_path / name / "script.py", tmp_path / "process")
    return calls


def is_running(process: Path) -> bool:
    try:
        os.kill(int(process.read_text(encoding="utf-8")), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.skipif(os.name != "posix", reason="asks for a process as POSIX does")
def test_a_failed_run_stops_the_others_and_names_its_log(runs, tmp_path):
    async def both() -> None:
        await asyncio.gather(*(labels.call(*arguments) for arguments in runs.values()))

    with pytest.raises(UserError, match=r"^the run failing failed: \S+log.txt tells why.$"):
        asyncio.run(both())
    assert (tmp_path / "failing" / "log.txt").read_text(encoding="utf-8") == "too loud\n"
    assert not is_running(tmp_path / "process")


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as POSIX does")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_started_ends_with_ctrl_c_or_kill(runs, tmp_path, number):
    def interrupt() -> None:
        while not (tmp_path / "process").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    before = signal.signal(number, signal.default_int_handler)
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(labels.call(*runs["sleeping"]))
    finally:
        thread.join()
        signal.signal(number, before)
    assert not is_running(tmp_path / "process")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--labels", "9"), "data.stores hold 4 songs with isolated vocals to train on, not 9"),
        (("--labels", "-1"), "data.labelled must be null"),
        (("--jobs", "0"), "--jobs must be 1 or more, not 0"),
        (("--variant-seeds", "0"), "--variant-seeds must be 1 or more, not 0"),
        (("--variants", "no/such/file"), "cannot read the variants no/such/file: .*No such file"),
        (("--root", "no/such/folder"), "there is no folder no/such/folder"),
    ],
)
def test_bad_input_is_one_sentence_before_anything_is_trained(music, tmp_path, monkeypatch, options, sentence):
    with pytest.raises(UserError, match=sentence):
        call_main(monkeypatch, *command_line(music, tmp_path), *options)
    assert not list(tmp_path.iterdir())
