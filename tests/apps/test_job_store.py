"""The app's jobs without a network: what is kept, what is let go of, and what a folder from somebody else cannot do."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from networks import random_weights

from separation.apps import job_store
from separation.apps.job_store import Choices, JobStore, StoredJob
from separation.audio.io import write
from separation.errors import UserError
from separation.songs.batch import Job
from separation.songs.render import RenderReport
from separation.stems import STEMS

COMMAND = {"weights": None, "device": "cpu", "engine": "torch", "network": None}
CHOICES = Choices(COMMAND, {"stems": ("all", "two"), "format": ("wav", "mp3"), "quality": ("fast", "best")})


@pytest.fixture
def separating(monkeypatch):
    """Separation without a network, which waits for `go`; stems are half a second of silence."""
    go = threading.Event()

    def plan(songs, naming, settings):
        (song,) = songs
        paths = naming.paths(song.name, STEMS)
        kept = tuple(stem for stem, path in paths.items() if path.exists())
        return [Job(song, paths, naming.path(song.name, "").parent / ".separation.json", kept)], []

    def separate(job, settings, progress):
        assert go.wait(30)
        if job.song.file.path.read_bytes() == b"bad":
            raise UserError(f"{job.song.file.path} is no audio.", "not_audio")
        for path in job.paths.values():
            write(path, torch.zeros(1, 4000), 8000)
        job.record.write_text("{}")
        progress(1.0)
        return RenderReport(1.0, 1.0, 1.0, {}, ("mixed down",))

    monkeypatch.setattr(job_store, "plan", plan)
    monkeypatch.setattr(job_store, "separate", separate)
    yield go
    go.set()


def send(store: JobStore, name: str, content: bytes = b"song") -> StoredJob:
    job = store.receive(name, {}, len(content))
    job.path.write_bytes(content)
    store.start(job)
    return job


def wait(job: StoredJob, *states: str) -> StoredJob:
    for _ in range(600):
        if job.state in states:
            return job
        time.sleep(0.05)
    raise AssertionError(job)


def test_a_song_that_is_deleted_between_its_last_chunk_and_the_listing_is_not_listed(tmp_path, separating):
    store = JobStore(tmp_path, CHOICES)
    describe, deleted = store.page.describe, threading.Event()

    def describe_and_delete(*arguments, **options):
        song = describe(*arguments, **options)
        if not deleted.is_set():
            store.delete(job.id)
            deleted.set()
        return song

    store.page.describe = describe_and_delete
    job = send(store, "late.wav")
    separating.set()
    wait(send(store, "next.wav"), "done")
    assert deleted.is_set() and [song["name"] for song in store.page.songs()] == ["next"]
    assert not (tmp_path / "late").exists() and not job.folder.exists()


def test_a_song_that_was_there_stays_when_its_job_is_deleted(tmp_path, separating):
    separating.set()
    store = JobStore(tmp_path, CHOICES)
    first = wait(send(store, "song.wav"), "done")
    store.delete(first.id)
    assert [song["name"] for song in store.page.songs()] == ["song"] and (tmp_path / "song/vocals.wav").exists()
    assert wait(send(store, "song.wav"), "done").already_there


def test_ended_jobs_are_let_go_of(tmp_path, separating, monkeypatch):
    monkeypatch.setattr(job_store, "ENDED", 3)
    separating.set()
    store = JobStore(tmp_path, CHOICES)
    jobs = [wait(send(store, f"{n}.wav", b"bad" if n % 2 else b"song"), "done", "failed") for n in range(6)]
    with store.changed:  # the last one has ended altogether
        assert [job.id for job in jobs[-3:]] == list(store.jobs)
        assert sorted(folder.name for folder in store.own.iterdir() if folder.is_dir()) == sorted(store.jobs)
        assert not list(store.own.glob("*/*.wav"))


def test_few_stem_files_are_kept(tmp_path, separating, monkeypatch):
    monkeypatch.setattr(job_store, "KEPT_FILES", 1)
    separating.set()
    store = JobStore(tmp_path, CHOICES)
    wait(send(store, "song.wav"), "done")
    jobs = [wait(store.write_stem_file("song"), "done") for _ in range(3)]
    with store.changed:  # the last one has ended altogether
        assert [job.path.exists() for job in jobs] == [False, False, True]


def test_waiting_songs_are_bounded_in_number_and_size(tmp_path, separating, monkeypatch):
    monkeypatch.setattr(job_store, "PENDING", 3)
    store = JobStore(tmp_path, CHOICES)
    jobs = [send(store, f"{n}.wav") for n in range(3)]
    with pytest.raises(UserError) as error:
        store.receive("one more.wav", {})
    assert error.value.code == "queue_full"
    store.delete(jobs[0].id)
    monkeypatch.setattr(job_store, "PENDING_BYTES", 1000)
    jobs[1].size = 600
    with pytest.raises(UserError) as error:
        store.receive("large.wav", {}, 500)
    assert error.value.code == "queue_full"
    store.receive("small.wav", {}, 300)


def test_a_failure_is_a_sentence_that_names_the_song_and_no_path(tmp_path, separating):
    separating.set()
    job = wait(send(JobStore(tmp_path, CHOICES), "bad.mp3", b"bad"), "failed")
    assert job.error == {"code": "not_audio", "message": "“bad” is no audio."}


def test_one_stem_file_is_written_at_a_time(tmp_path, separating, monkeypatch):
    separating.set()
    store, running, most = JobStore(tmp_path, CHOICES), [], []

    def join(stems, path, cover, progress):
        running.append(path)
        most.append(len(running))
        time.sleep(0.05)
        path.write_bytes(b"stems")
        running.remove(path)

    monkeypatch.setattr(job_store, "join", join)
    wait(send(store, "song.wav"), "done")
    for job in [store.write_stem_file("song") for _ in range(4)]:
        wait(job, "done")
    assert most == [1, 1, 1, 1]


@pytest.mark.parametrize(
    "lie",
    [
        {"file": "../../../keep.txt"},
        {"file": ".."},
        {"name": "../../up"},
        {"name": ".."},
        {"name": ""},
        {"kind": "other"},
        {"state": "other"},
        {"unknown": 1},
        {"name": 3},
        {"song": 5},
        {"size": "x"},
        {"error": []},
    ],
)
def test_a_record_from_somebody_else_leads_out_of_no_folder(tmp_path, separating, lie):
    separating.set()
    (tmp_path / "keep.txt").write_text("mine")
    folder = tmp_path / "stems/.jobs/abandoned/0123456789abcdef"
    folder.mkdir(parents=True)
    record = {**asdict(StoredJob(folder, "song", file="song.wav", state="waiting")), "folder": None, **lie}
    (folder / "job.json").write_text(json.dumps(record))
    (folder.parent / "lock").touch()
    store = JobStore(tmp_path / "stems", CHOICES)
    wait(send(store, "other.wav"), "done")
    assert [job.name for job in store.jobs.values()] == ["other"]
    assert (tmp_path / "keep.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep.txt", "stems"]


def test_a_link_in_place_of_a_job_is_not_followed(tmp_path, separating):
    separating.set()
    other = tmp_path / "music"
    other.mkdir()
    (other / "song.wav").write_bytes(b"mine")
    (other / "job.json").write_text(json.dumps({"name": "song", "file": "song.wav", "state": "waiting"}))
    for place in ("stems/.jobs/abandoned", "stems/.jobs"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / "stems/.jobs/abandoned/lock").touch()
    (tmp_path / "stems/.jobs/abandoned/0123456789abcdef").symlink_to(other)
    (tmp_path / "stems/.jobs/link").symlink_to(other)
    store = JobStore(tmp_path / "stems", CHOICES)
    wait(send(store, "other.wav"), "done")
    assert next(iter(store.jobs.values())).name == "other" and (other / "song.wav").read_bytes() == b"mine"


def test_a_song_on_the_page_with_a_name_that_leads_away_has_its_stem_file_here(tmp_path, separating):
    separating.set()
    store = JobStore(tmp_path / "stems", CHOICES)
    wait(send(store, "song.wav"), "done")
    store.page.put({**store.page.songs()[0], "name": "../../up"})
    job = wait(store.write_stem_file("../../up"), "done")
    assert job.path.parent == job.folder and job.path.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["stems"]


def test_choices_take_other_names_of_stems_and_the_default_where_nothing_is_chosen():
    choices = Choices(COMMAND, {"stems": ("all", "karaoke"), "format": ("mp3",), "quality": ("fast",)})
    assert choices.settings({"stems": "karaoke"}).names == ("karaoke",)
    settings = choices.settings({})
    assert settings.names == STEMS and settings.form.format == "mp3" and not settings.best
    for option, value in (("stems", "guitar"), ("format", "wav"), ("quality", "best")):
        with pytest.raises(UserError) as error:
            choices.settings({option: value})
        assert error.value.code == f"unknown_{option}"


def test_without_a_choice_the_stems_are_those_that_the_weights_give(tmp_path):
    weights = [random_weights(tmp_path / "drums.safetensors", ("drums",))]
    choices = Choices.find({**COMMAND, "weights": weights}, {"stems": "", "format": "wav", "quality": "fast"})
    assert choices.settings({}).names == ("drums", "no_drums")


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError) as error:
        JobStore(Path(tmp_path / "file"), CHOICES)
    assert error.value.code == "not_a_folder"
