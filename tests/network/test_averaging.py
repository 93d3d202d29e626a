from __future__ import annotations

import pytest
import torch
from networks import BandSplit, random_network
from torch import Tensor

from separation.errors import UserError
from separation.network.averaging import COPIES, AveragingSeparator
from separation.network.separator import Separator
from separation.stems import STEMS


def make_song(samples: int = 100_001, channels: int = 2) -> Tensor:
    return 0.2 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


def separate(separator: AveragingSeparator, song: Tensor, rate: int = 44100) -> dict[str, Tensor]:
    pieces = list(separator.stream(song.split(7000, dim=-1), rate))
    return {stem: torch.cat([piece[stem] for piece in pieces], dim=-1) for stem in separator.stems}


@pytest.mark.parametrize("rate", [44100, 48000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_are_the_mean_over_the_copies_and_sum_to_the_song(rate, channels):
    song, separator = make_song(channels=channels), Separator(random_network(STEMS), chunk_frames=32, precision="fp32")
    found = separate(AveragingSeparator([separator]), song, rate)
    assert all(stem.shape == song.shape for stem in found.values())
    torch.testing.assert_close(sum(found.values()), song, atol=1e-5, rtol=0)
    late = round(separator.grid * rate / 2)
    plain = separator(song, rate)
    shifted = separator(torch.cat([song.new_zeros(channels, late), song.flip(0)], dim=-1), rate)
    for stem in STEMS:
        torch.testing.assert_close(found[stem], (plain[stem] + shifted[stem][:, late:].flip(0)) / 2, atol=1e-5, rtol=0)
    assert any((found[stem] - plain[stem]).abs().max() > 1e-3 for stem in STEMS)


def test_each_copy_goes_to_the_next_separator():
    song, separators = make_song(), [Separator(BandSplit(frequency)) for frequency in (2000, 8000)]
    found = separate(AveragingSeparator(separators), song)
    mean = sum(separator(song, 44100)["vocals"] for separator in separators) / len(COPIES)
    inner = slice(2000, -2000)  # the first frames of the copy have silence before them, and the song's have not
    torch.testing.assert_close(found["vocals"][:, inner], mean[:, inner], atol=1e-3, rtol=0)


def test_separators_of_other_stems_are_refused():
    with pytest.raises(UserError, match="do not all give"):
        AveragingSeparator([Separator(random_network()), Separator(random_network(STEMS))])
