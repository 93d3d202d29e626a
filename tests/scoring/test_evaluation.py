from __future__ import annotations

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import make_stems, write_files
from torch import Tensor

from separation.dataset.layouts import Track, find_tracks, provide_ffmpeg
from separation.errors import UserError
from separation.scoring.evaluation import (
    COLUMNS,
    METRICS,
    MIXTURE_SDR,
    USDR,
    SongScores,
    can_be_scored,
    evaluate_track,
    frame_sdr,
    load_json,
    read_references,
    save_csv,
    save_json,
    score,
    summary,
    table,
)
from separation.stems import STEMS, rest_name

RATE = 8000


@pytest.fixture
def stems() -> dict[str, Tensor]:
    """Three seconds in mono, which museval scores much faster."""
    return {stem: signal[:1] for stem, signal in make_stems(0, 3.0, RATE).items()}


def as_track(folder, signals: dict[str, Tensor], name: str = "song") -> Track:
    write_files(folder / name, signals, RATE)
    return next(track for track in find_tracks("FOLDER", folder) if track.name == name)


class Oracle:
    """Stands in for a separator: knows the stems, and adds `noise` times white noise to each of them."""

    def __init__(self, stems: dict[str, Tensor], noise: float = 0.0):
        self.stems, self.noise = stems, noise

    def __call__(self, mixture: Tensor, sample_rate: int) -> dict[str, Tensor]:
        assert sample_rate == RATE
        rests = {rest_name([stem]): mixture - signal for stem, signal in self.stems.items()}
        random = torch.Generator().manual_seed(0)
        return {
            source: signal + self.noise * torch.randn(signal.shape, generator=random)
            for source, signal in (self.stems | rests).items()
        }


def test_a_perfect_separation_scores_very_high(tmp_path, stems):
    scores = evaluate_track(as_track(tmp_path, stems), Oracle(stems), "vocals")
    assert set(scores.sources) == {"vocals", "accompaniment"}
    assert all(len(scores.sources[source][metric]) == 3 for source in scores.sources for metric in COLUMNS)
    for source in scores.sources:
        for metric in METRICS:
            assert scores.score(source, metric) > 60
        assert scores.score(source, MIXTURE_SDR) < 20


def test_white_noise_costs_its_share_of_energy_and_interferes_with_nothing(tmp_path, stems):
    noise = 0.02
    scores = evaluate_track(as_track(tmp_path, stems), Oracle(stems, noise), "drums")
    for source, reference in (("drums", stems["drums"]), ("no_drums", sum(stems.values()) - stems["drums"])):
        seconds = reference.unflatten(1, (3, RATE)).square().mean((0, 2))
        expected = (10 * torch.log10(seconds / noise**2)).median()
        assert abs(scores.score(source, "SDR") - expected) < 0.3
        assert scores.score(source, "SIR") > scores.score(source, "SDR") + 5
        assert abs(scores.score(source, "SAR") - scores.score(source, "SDR")) < 1


def test_the_mixture_as_estimate_scores_what_museval_says(stems):
    mixture = sum(stems.values())
    frames = score(stems, dict.fromkeys(stems, mixture), mixture, RATE)
    for stem in STEMS:
        np.testing.assert_allclose(frames[stem]["SDR"], frames[stem][MIXTURE_SDR], atol=1e-6)
        rest = mixture - stems[stem]
        energies = (signal[:, :RATE].double().square().sum() for signal in (stems[stem], rest))
        assert abs(frames[stem]["SDR"][0] - 10 * torch.log10(next(energies) / next(energies))) < 1e-4


def test_scores_are_those_of_museval_by_itself(tmp_path, stems):
    provide_ffmpeg()
    import museval

    estimates = Oracle(stems, 0.05)(sum(stems.values()), RATE)
    references = stems | {"accompaniment": stems["drums"] + stems["bass"] + stems["other"]}
    targets = {source: SimpleNamespace(audio=signal.T.double().numpy()) for source, signal in references.items()}
    song = SimpleNamespace(name="song", rate=RATE, targets=targets)  # as museval sees a song of musdb
    expected = museval.eval_mus_track(song, {source: estimates[source].T.double().numpy() for source in targets})
    found = evaluate_track(as_track(tmp_path, stems), Oracle(stems, 0.05), "all")
    for target in expected.scores["targets"]:
        for metric in METRICS:
            values = [float(frame["metrics"][metric]) for frame in target["frames"]]
            np.testing.assert_allclose(found.sources[target["name"]][metric], values, atol=0.02)  # 16-bit references


def test_real_music_scores_as_with_musdb_and_museval(real_musdb, tmp_path):
    provide_ffmpeg()
    import musdb
    import museval

    (tmp_path / "train").mkdir()
    shutil.copy(real_musdb / "train" / "Actions - One Minute Smile.stem.mp4", tmp_path / "train")
    (song,) = musdb.DB(root=str(tmp_path))
    expected = museval.eval_mus_track(song, {"vocals": song.audio / 4, "accompaniment": song.audio * 3 / 4})

    def quarter(mixture: Tensor, _: int) -> dict[str, Tensor]:
        return {"vocals": mixture / 4, "accompaniment": mixture * 3 / 4}

    (track,) = find_tracks("MUSDB18", tmp_path)
    found = evaluate_track(track, quarter, "vocals")
    for target in expected.scores["targets"]:
        values = [float(frame["metrics"]["SDR"]) for frame in target["frames"]]
        np.testing.assert_allclose(found.sources[target["name"]]["SDR"], values, atol=0.01)


def test_seconds_in_which_a_source_is_silent_do_not_count(tmp_path, stems):
    stems["vocals"][:, :RATE] = 0
    scores = evaluate_track(as_track(tmp_path, stems), Oracle(stems, 0.01), "vocals")
    for source in ("vocals", "accompaniment"):
        for column in COLUMNS:
            values = scores.sources[source][column]
            assert np.isnan(values[0])
            assert np.isfinite(values[1:]).all()
            assert scores.score(source, column) == pytest.approx(np.median(values[1:]))


def test_what_musdb_would_read_as_silence_is_silence(tmp_path, stems):
    stems["vocals"][:, :RATE] = 1e-6
    scores = evaluate_track(as_track(tmp_path, stems), Oracle(stems, 0.01), "vocals")
    assert np.isnan(scores.sources["vocals"]["SDR"][0])


def test_a_silent_reference_is_left_out_and_counted(tmp_path, stems):
    stems["vocals"] = torch.zeros_like(stems["vocals"])
    track = as_track(tmp_path, stems)
    scores = evaluate_track(track, Oracle(stems, 0.01), "vocals")
    assert scores.sources == {}
    assert scores.left_out == {"vocals": "silent reference", "accompaniment": "the only audible source"}
    scores = evaluate_track(track, Oracle(stems, 0.01), "all")
    assert set(scores.sources) == {"drums", "bass", "other"}
    text = table([scores], "all")
    assert "left out, 2:" in text
    assert "vocals of song: silent reference" in text


def test_a_silent_estimate_is_left_out_and_spoils_no_other(tmp_path, stems):
    class Deaf(Oracle):
        def __call__(self, mixture, sample_rate):
            estimates = super().__call__(mixture, sample_rate)
            return estimates | {"vocals": torch.zeros_like(mixture)}

    track = as_track(tmp_path, stems)
    scores = evaluate_track(track, Deaf(stems, 0.02), "vocals")
    assert scores.left_out == {"vocals": "silent estimate"}
    expected = evaluate_track(track, Oracle(stems, 0.02), "vocals")
    for metric in METRICS:
        np.testing.assert_allclose(scores.sources["accompaniment"][metric], expected.sources["accompaniment"][metric])


def test_songs_without_a_stem_or_a_mixture_cannot_be_scored():
    def track(*names: str) -> Track:
        return Track("song", "test", dict.fromkeys(names))

    assert can_be_scored(track("vocals", "accompaniment"), "vocals")
    assert can_be_scored(track("mixture", "drums"), "drums")
    assert can_be_scored(track("drums", "bass", "other"), "all")
    assert not can_be_scored(track("drums", "bass", "other"), "vocals")
    assert not can_be_scored(track("vocals"), "vocals")
    assert not can_be_scored(track("mixture"), "all")


def test_the_rest_is_what_the_mixture_has_besides(tmp_path, stems):
    rest = stems["bass"] + stems["other"]
    track = as_track(tmp_path, {"mixture": stems["drums"] + rest, "drums": stems["drums"]})
    _, references, _ = read_references(track, ["drums", "no_drums"])
    assert (references["no_drums"] - rest).abs().max() < 1 / 32768
    other_song = as_track(tmp_path, {"mixture": 0.9 * sum(stems.values()), **stems}, "coded apart")
    _, references, _ = read_references(other_song, ["drums", "no_drums"])
    assert (references["no_drums"] - rest - stems["vocals"]).abs().max() < 1 / 32768


def test_stereo_counts_both_channels(tmp_path, stems):
    stereo = {stem: torch.cat([signal, signal.flip(1)]) for stem, signal in stems.items()}
    estimates = {stem: signal * torch.tensor([[1.0], [0.5]]) for stem, signal in stereo.items()}
    scores = evaluate_track(as_track(tmp_path, stereo), Oracle(estimates), "vocals")
    left, right = stereo["vocals"].unflatten(1, (3, RATE)).square().sum(2)
    assert scores.score("vocals", "SDR") == pytest.approx(
        (10 * torch.log10((left + right) / (right / 4))).median().item(), abs=0.1
    )


def test_songs_shorter_than_a_second_have_one_frame(tmp_path):
    short = make_stems(0, 0.5, RATE)
    scores = evaluate_track(as_track(tmp_path, short), Oracle(short, 0.02), "vocals")
    assert len(scores.sources["vocals"]["SDR"]) == len(scores.sources["vocals"][MIXTURE_SDR]) == 1


def test_singular_systems_do_not_stop_museval(stems, monkeypatch):
    mixture = sum(stems.values())
    references = {stem: stems[stem] for stem in ("vocals", "drums")}
    expected = score(references, dict.fromkeys(references, mixture), mixture, RATE)

    def singular(*_):
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(np.linalg, "solve", singular)
    found = score(references, dict.fromkeys(references, mixture), mixture, RATE)
    np.testing.assert_allclose(found["vocals"]["SIR"], expected["vocals"]["SIR"], atol=0.1)


def test_frame_sdr_by_hand():
    reference = np.array([[3.0], [4.0], [0.0], [0.0], [1.0]])
    estimate = np.array([[3.0], [3.5], [1.0], [0.0], [9.0]])
    found = frame_sdr(reference, estimate, 2)
    assert found[0] == pytest.approx(20)  # 25 against 0.25
    assert found[1] == -np.inf
    assert len(found) == 2  # what does not fill a window does not count


def test_usdr_counts_the_silent_seconds_that_museval_leaves_out(tmp_path, stems):
    stems["vocals"][:, :RATE] = 0
    scores = evaluate_track(as_track(tmp_path, stems), Oracle(stems, 0.05), "vocals")
    energy, noise = float(stems["vocals"].square().sum()), 0.05**2 * stems["vocals"].numel()
    assert scores.score("vocals", USDR) == pytest.approx(10 * np.log10(energy / noise), abs=0.1)
    assert scores.score("vocals", "SDR") > scores.score("vocals", USDR) + 0.5
    assert np.isnan(scores.score("drums", USDR))


def songs() -> list[SongScores]:
    def frames(*values: float) -> dict[str, np.ndarray]:
        return {column: np.array(values) + k for k, column in enumerate(COLUMNS)}

    return [
        SongScores(
            "one", "test", {"vocals": frames(1, 2, 9), "accompaniment": frames(5, np.nan, 6)},
            {"vocals": 1.0, "accompaniment": 5.0}, {},
        ),
        SongScores("two", "test", {"vocals": frames(4, 4, np.inf), "accompaniment": frames(7)}, {"vocals": 9.0}, {}),
        SongScores("three", "test", {"vocals": frames(8)}, {"vocals": 2.0}, {"accompaniment": "silent reference"}),
    ]  # fmt: skip


def test_the_summary_has_medians_of_medians_and_means_of_usdr():
    found = summary(songs(), "vocals")
    assert found["vocals"]["SDR"] == 4  # of 2, 4, 8
    assert found["vocals"]["SAR"] == 7
    assert found["accompaniment"]["SDR"] == 6.25  # of 5.5, 7
    assert found["vocals"][USDR] == 4  # of 1, 9, 2
    assert found["accompaniment"][USDR] == 5


def test_the_table_shows_songs_medians_and_what_is_missing():
    lines = table(songs(), "vocals").splitlines()
    assert lines[0].split() == ["song", "source", "SDR", "SIR", "ISR", "SAR", "mixture", "SDR", "usdr"]
    assert lines[2].split() == ["one", "vocals", "2.00", "3.00", "4.00", "5.00", "6.00", "1.00"]
    assert lines[7].split() == ["three", "accompaniment", "-", "-", "-", "-", "-", "-"]
    assert lines[9].split()[-7:] == ["vocals", "4.00", "5.00", "6.00", "7.00", "8.00", "4.00"]
    assert lines[-2:] == ["left out, 1:", "accompaniment of three: silent reference"]
    assert len({len(line) for line in lines[:-2]}) == 1


def test_the_csv_holds_the_scores_of_each_song_and_their_weights(tmp_path):
    for part in (songs()[:1], songs()[1:]):  # the rows of other songs stay
        save_csv(tmp_path / "scores" / "test.csv", part, "vocals", "fast-0123abcd")
    with (tmp_path / "scores" / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [(row["song"], row["source"], row["SDR"], row["usdr"]) for row in rows] == [
        ("one", "vocals", "2.000", "1.000"),
        ("one", "accompaniment", "5.500", "5.000"),
        ("three", "vocals", "8.000", "2.000"),
        ("three", "accompaniment", "", ""),
        ("two", "vocals", "4.000", "9.000"),
        ("two", "accompaniment", "7.000", ""),
    ]
    assert rows[0]["mixture SDR"] == "6.000"
    assert {row["weights"] for row in rows} == {"fast-0123abcd"}


def test_museval_aggregates_the_json_files_to_the_same_medians(tmp_path):
    provide_ffmpeg()
    import museval

    for song in songs():
        save_json(tmp_path, song, {})
    store = museval.EvalStore()
    store.add_eval_dir(tmp_path)
    found = store.agg_frames_tracks_scores()
    for source, columns in summary(songs(), "vocals").items():
        for metric in METRICS:
            assert found[source][metric] == pytest.approx(columns[metric])


def test_json_has_null_for_what_is_no_number_and_is_read_back(tmp_path):
    """museval writes a bare NaN there, which no JSON parser but Python's takes."""
    files = {"vocals": ["song/vocals.wav", 0, 1234, 10**18]}
    for song in songs():
        save_json(tmp_path, song, files)
        path = tmp_path / "test" / f"{song.name}.json"
        content = json.loads(path.read_text(), parse_constant=pytest.fail)
        assert ("null" in path.read_text()) == any(
            not np.isfinite(values).all() for frames in song.sources.values() for values in frames.values()
        )
        assert {target["name"] for target in content["targets"]} == set(song.sources)
        found = load_json(tmp_path, Track(song.name, "test", {}), files)
        assert (found.usdr, found.left_out) == (song.usdr, song.left_out)
        for source in song.sources:
            assert found.score(source, "SDR") == pytest.approx(song.score(source, "SDR"))


def test_scores_of_other_files_are_neither_read_nor_replaced(tmp_path):
    track, files = Track("one", "test", {}), {"vocals": ["a.wav", 0, 1234, 10**18]}
    assert load_json(tmp_path, track, files) is None
    save_json(tmp_path, songs()[0], files)
    before = (tmp_path / "test" / "one.json").read_bytes()
    for content, other in ((None, {"vocals": ["a.wav", 0, 1235, 10**18]}), ("{}", files), ("[", files)):
        if content:
            (tmp_path / "test" / "one.json").write_text(content)
        with pytest.raises(UserError) as error:
            load_json(tmp_path, track, other)
        assert error.value.code == "other_scores"
        (tmp_path / "test" / "one.json").write_bytes(before)
