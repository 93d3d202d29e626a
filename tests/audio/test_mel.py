from __future__ import annotations

import pytest
import torch
from torchaudio.functional import melscale_fbanks

from separation.audio.mel import mel_filters


@pytest.mark.parametrize(("bins", "sample_rate", "highest"), [(2049, 44100, 20_000), (513, 8000, 4000)])
def test_the_filters_are_those_of_torchaudio(bins, sample_rate, highest):
    expected = melscale_fbanks(bins, 40, highest, 96, sample_rate).T
    torch.testing.assert_close(mel_filters(96, bins, sample_rate, 40, highest), expected, atol=2e-4, rtol=0)
