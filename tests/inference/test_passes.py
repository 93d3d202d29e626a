"""Networks that split songs at a frequency, whose mean is known, and the shipped ones together."""

from __future__ import annotations

import pytest
import torch
from networks import BandSplit, random_network, random_weights

from separation import Separator
from separation.errors import UserError
from separation.inference.separator import Song
from separation.inference.weights import find_weights
from separation.stems import STEMS

RATE = 44100


def song(channels: int = 2, samples: int = 30_000) -> torch.Tensor:
    return 0.1 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_are_the_means_over_networks_and_speeds_and_sum_to_the_song(rate, channels):
    separator = Separator(random_network(STEMS), precision="fp32")
    found, plain = (
        Separator([separator.network] * 3, precision="fp32")(song(channels), rate),
        separator(song(channels), rate),
    )
    torch.testing.assert_close(sum(found.values()), song(channels), atol=1e-5, rtol=0)
    fast, faster = (separator(song(channels), round(rate * speed)) for speed in (1.06, 1.12))
    for stem in STEMS:
        expected = (plain[stem] + fast[stem] + faster[stem]) / 3
        torch.testing.assert_close(found[stem], expected, atol=1e-5, rtol=0)
    assert any((found[stem] - plain[stem]).abs().max() > 1e-3 for stem in STEMS)


def test_the_speeds_can_be_chosen():
    separator = Separator(random_network(STEMS), precision="fp32")
    found = Separator([separator.network] * 2, speeds=(1.06, 0.94), precision="fp32")(song(), RATE)["vocals"]
    mean = sum(separator(song(), round(RATE * speed))["vocals"] for speed in (1.06, 0.94)) / 2
    torch.testing.assert_close(found, mean, atol=1e-5, rtol=0)


def test_faster_is_higher():
    """To a network that calls vocals what lies above 2.1 kHz, a tone at 2 kHz is so only when played faster."""
    tone = 0.5 * torch.sin(2 * torch.pi * 2000 * torch.arange(RATE) / RATE).expand(2, -1)
    found = Separator([BandSplit(2100)] * 2)(tone, RATE)["vocals"][:, 5000:-5000]
    torch.testing.assert_close(found, tone[:, 5000:-5000] / 2, atol=0.02, rtol=0)


def test_samples_may_come_as_fast_as_in_any_song():
    separator = Separator(random_network(("vocals",)))
    for rate in (1, 1_000_000):
        assert Separator([separator.network] * 3, precision="fp32")(song(samples=300), rate)["vocals"].shape == (2, 300)


def test_each_network_has_the_same_say():
    members = [Separator(BandSplit(frequency)) for frequency in (2000, 8000)]
    found = Separator([member.network for member in members])(song(), RATE)
    mean = (members[0](song(), RATE)["vocals"] + members[1](song(), round(1.12 * RATE))["vocals"]) / 2
    torch.testing.assert_close(found["vocals"], mean, atol=1e-5, rtol=0)


def test_networks_for_other_targets_count_where_they_can():
    """A network for vocals beside one for four stems: drums and bass are of the one alone, and all sum to the song."""
    four, voice = Separator(random_network(STEMS)), Separator(random_network(("vocals",)))
    together = Separator([four.network, voice.network], speeds=[1.0])
    stems, alone = together(song(), RATE), four(song(), RATE)
    assert tuple(stems) == STEMS
    expected = (alone["vocals"] + voice(song(), RATE)["vocals"]) / 2
    torch.testing.assert_close(stems["vocals"], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(sum(stems.values()), song(), atol=1e-5, rtol=0)
    assert len(Separator([voice.network, four.network], "drums").passes) == 1


def test_several_passes_are_live_too():
    separator = Separator([random_network(STEMS)] * 2, chunk_frames=1)
    whole, live, got, behind = separator(song(), RATE), separator.live(RATE), [], 0
    for block in song().split(500, dim=-1):
        got.append(live.push(block))
        behind = max(behind, 500 * len(got) - sum(piece["vocals"].shape[-1] for piece in got))
    got.append(live.flush())
    torch.testing.assert_close(torch.cat([piece["vocals"] for piece in got], dim=-1), whole["vocals"])
    assert behind - 500 < live.latency * RATE < 1.1 * behind


def test_no_pass_runs_ahead_of_the_others():
    """Long songs take no more memory than short ones: what waits for other passes is bounded, and soon constant."""
    separator = Separator([random_network(STEMS), random_network(("vocals",)), random_network(STEMS)], precision="fp32")

    def most_waiting(seconds: int) -> int:
        live, most = Song(separator, RATE, 32), 0
        for block in song(samples=RATE).repeat(1, seconds).split(20_000, dim=-1):
            for _ in live.pieces(block):
                most = max(most, live.waiting)
        return most

    assert 0 < most_waiting(10) <= most_waiting(5) + 20_000


def test_a_stream_gives_the_same_however_it_is_cut():
    together = Separator([random_network(STEMS), random_network(("vocals",))])
    whole = together(song(), RATE)
    for size in (700, 30_000):
        pieces = list(together.stream(song().split(size, dim=-1), RATE))
        joined = torch.cat([piece["vocals"] for piece in pieces], dim=-1)
        torch.testing.assert_close(joined, whole["vocals"], atol=1e-5, rtol=0)


def test_weights_are_files_or_sets_of_the_shipped_ones(tmp_path):
    def chosen(weights, *stems: str) -> list[str]:
        return [path.stem for path in find_weights(weights, stems)]

    assert chosen(None) == chosen("fast") == ["vocals"]
    assert chosen("fast", *STEMS) == ["all"]
    assert chosen("best") == chosen("best", *STEMS) == ["all", "vocals", "all"]
    assert chosen("best", "drums", "no_drums") == ["all", "all", "all"]
    assert chosen(["mine.safetensors", "mine.safetensors"]) == ["mine", "mine"]
    assert Separator.load("best", "cpu").stems == Separator.load("fast", "cpu").stems == ("vocals", "accompaniment")
    assert Separator.load("best", "cpu", STEMS).stems == Separator.load("best", "cpu").sources == STEMS
    assert chosen("live") == ["vocals_live"] and Separator.load("live", "cpu").live(44100).latency < 0.2
    paths = [random_weights(tmp_path / "a.safetensors"), random_weights(tmp_path / "b.safetensors", STEMS)]
    assert Separator.load(paths, "cpu").stems == STEMS
    assert Separator.load(paths, "cpu", "vocals").stems == ("vocals",)
    with pytest.raises(UserError, match="do not separate guitar"):
        Separator.load(paths, "cpu", ["guitar"])
