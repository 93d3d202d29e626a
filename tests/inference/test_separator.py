from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from music import make_song
from networks import BandSplit, onnx_network, random_network, random_weights
from torch import Tensor

from separation.errors import UserError
from separation.inference import weights as pretrained_module
from separation.inference.masking import MaskingNetwork
from separation.inference.separator import Separator, sdr
from separation.inference.weights import default_weights
from separation.stems import STEMS, rest_name

TARGET_OF_REST = {rest_name([stem]): stem for stem in STEMS}


def noise(samples: int, channels: int = 2) -> Tensor:
    return 0.2 * torch.randn(channels, samples, generator=torch.Generator().manual_seed(0))


def tone(frequency: float, sample_rate: int, samples: int) -> Tensor:
    time = torch.arange(samples, dtype=torch.float64) / sample_rate
    return 0.4 * torch.sin(2 * torch.pi * frequency * time).float()[None]


@pytest.fixture(scope="module")
def torch_network():
    return random_network()


@pytest.fixture(scope="module", params=["torch", "onnx"])
def network(request, tmp_path_factory):
    """The same network, run by both engines."""
    return random_network() if request.param == "torch" else onnx_network(tmp_path_factory.mktemp("onnx"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_chunks_do_not_show(network, precision):
    if precision == "bf16" and not isinstance(network, MaskingNetwork):
        with pytest.raises(UserError) as error:
            Separator(network, precision=precision)(noise(1000), 44100)
        assert error.value.code == "no_precision"
        return
    song = noise(44100)
    whole = Separator(network, chunk_frames=100_000, precision=precision)(song, 44100)
    assert whole["vocals"].std() > 0.01 and whole["accompaniment"].std() > 0.01
    for frames in (1, 40, 97):
        chunked = Separator(network, chunk_frames=frames, precision=precision)(song, 44100)
        for stem, waveform in whole.items():
            torch.testing.assert_close(chunked[stem], waveform, atol=1e-5, rtol=0)


def test_a_separator_gives_what_the_network_does(torch_network):
    """Where nothing can be felt of the ends of the song, around which a separator hears silence."""
    song, edge = noise(60000), torch_network.context * torch_network.settings.hop
    with torch.no_grad():
        targets = torch_network(torch_network.spectral(song)[None])[0]
    vocals = torch_network.spectral.inverse(targets[0], song.shape[-1])[:, edge:-edge]
    separated = Separator(torch_network, precision="fp32")(song, 44100)["vocals"][:, edge:-edge]
    assert vocals.std() > 0.01
    torch.testing.assert_close(separated, vocals, atol=1e-5, rtol=0)


def test_the_number_of_threads_does_not_matter(torch_network):
    song, threads = noise(20000), torch.get_num_threads()
    try:
        stems = []
        for count in (1, 2):
            torch.set_num_threads(count)
            stems.append(Separator(torch_network, precision="fp32")(song, 44100)["vocals"])
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(*stems, atol=1e-6, rtol=0)


@pytest.mark.parametrize("samples", [40_000, 5_000, 1])
def test_before_and_after_a_song_is_its_mirror_image(network, samples):
    # Whole strides of it: the network's grid of frames moves along.
    song, shift = noise(samples), network.stride * network.settings.hop * 7
    alone = Separator(network, precision="fp32")(song, 44100)["vocals"]
    mirrored = torch.from_numpy(np.pad(song.numpy(), ((0, 0), (shift, shift)), mode="symmetric"))
    within = Separator(network, precision="fp32")(mirrored, 44100)["vocals"][:, shift:-shift]
    torch.testing.assert_close(within, alone, atol=1e-5, rtol=0)


def test_a_piece_of_a_song_is_separated_nearly_as_within_it():
    """Of the shipped weights: the edges of a piece that was cut out err a third less than with silence around it."""
    separator, song, second = Separator.load(), make_song(3, 8.0, 44100)["mixture"], 44100
    whole = separator(song, 44100)["vocals"][:, 3 * second : 5 * second]
    piece = song[:, 3 * second : 5 * second]
    silence = torch.zeros(2, 2 * second)
    among_silence = separator(torch.cat([silence, piece, silence], dim=1), 44100)["vocals"][:, 2 * second : -2 * second]
    errors = [(stem - whole).square().sum() for stem in (separator(piece, 44100)["vocals"], among_silence)]
    assert errors[0] < 0.67 * errors[1]


@pytest.mark.parametrize("size", [100, 5000, 44100])
def test_a_stream_gives_what_the_whole_does(network, size):
    song = noise(44100)
    separator = Separator(network, chunk_frames=64)
    whole = separator(song, 48000)
    pieces = list(separator.stream(song.split(size, dim=-1), 48000))
    for stem in separator.stems:
        torch.testing.assert_close(torch.cat([piece[stem] for piece in pieces], dim=-1), whole[stem], atol=1e-6, rtol=0)


def test_a_stream_holds_only_a_few_chunks(network):
    """What has gone in but not come out yet stays bounded, however long the song is."""
    separator, fed, got, largest = Separator(network, chunk_frames=64), 0, 0, 0

    def blocks():
        nonlocal fed
        for _ in range(100):
            fed += 4410
            yield noise(4410)

    for piece in separator.stream(blocks(), 48000):
        largest = max(largest, fed - got)
        got += piece["vocals"].shape[-1]
    assert got == fed == 441_000
    assert largest < 60_000


@pytest.mark.parametrize("sample_rate", [8000, 44100, 48000, 96000])
@pytest.mark.parametrize("channels", [1, 2])
def test_stems_have_the_songs_shape_and_sum_to_it(network, sample_rate, channels):
    for samples in (0, 1, 2, sample_rate // 100, 30011):
        song = noise(samples, channels)
        stems = Separator(network)(song, sample_rate)
        assert all(stem.shape == song.shape for stem in stems.values())
        torch.testing.assert_close(sum(stems.values()), song, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sample_rate", [22050, 44100, 48000, 96000])
def test_stems_keep_their_pitch_level_and_place(sample_rate):
    samples = sample_rate
    high, low = tone(6000, sample_rate, samples), tone(300, sample_rate, samples)
    stems = Separator(BandSplit(2000), precision="fp32")(high + low, sample_rate)
    middle = slice(sample_rate // 10, -sample_rate // 10)
    torch.testing.assert_close(stems["vocals"][:, middle], high[:, middle], atol=2e-3, rtol=0)
    torch.testing.assert_close(stems["accompaniment"][:, middle], low[:, middle], atol=2e-3, rtol=0)


def test_what_lies_above_the_networks_band_is_kept():
    ultrasound = tone(30000, 96000, 96000)
    stems = Separator(BandSplit(2000))(ultrasound, 96000)
    assert stems["accompaniment"].square().mean() > 0.99 * ultrasound.square().mean()


@pytest.mark.parametrize("sample_rate", [44100, 48000])
def test_silence_stays_silence(network, sample_rate):
    stems = Separator(network)(torch.zeros(2, 50000), sample_rate)
    assert all(not waveform.any() for waveform in stems.values())


def test_a_loud_song_is_separated_and_an_absurd_one_refused(network):
    stems = Separator(network)(1000 * noise(20000), 44100)
    assert all(waveform.isfinite().all() for waveform in stems.values())
    with pytest.raises(UserError, match="loud"):
        Separator(network)(1e30 * noise(20000), 44100)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_samples_that_are_no_numbers_are_refused(network, value):
    song = noise(20000)
    song[1, 12345] = value
    with pytest.raises(UserError, match="NaN or infinite"):
        Separator(network)(song, 44100)


KINDS = {
    "float64": lambda song: song.double(),
    "int16": lambda song: (song * 2**15).round().to(torch.int16),
    "int32": lambda song: (song.double() * 2**31).round().to(torch.int32),
    "uint8": lambda song: (song * 128 + 128).round().to(torch.uint8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_samples_of_every_type_are_taken_at_their_full_scale(network, kind):
    song, separator = noise(20000), Separator(network, precision="fp32")
    step = {"uint8": 1 / 128, "int16": 1 / 2**15}.get(kind, 1e-6)
    expected, typed = separator(song, 44100), KINDS[kind](song)
    array = typed.numpy()
    reversed_twice = np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    for given in (typed, array, reversed_twice, array.astype(array.dtype.newbyteorder(">"))):
        found = separator(given, 44100)
        assert all(isinstance(stem, type(given)) for stem in found.values())  # tensors for a tensor, else arrays
        found = {stem: torch.as_tensor(waveform) for stem, waveform in found.items()}
        assert all(found[stem].dtype == torch.float32 for stem in expected)
        assert (sum(found.values()) - song).abs().max() < 2 * step
        for stem, waveform in expected.items():
            assert (found[stem] - waveform).square().mean().sqrt() < step
    pieces = list(separator.stream(typed.split(3000, dim=-1)))
    assert torch.equal(torch.cat([piece["vocals"] for piece in pieces], dim=-1), found["vocals"])


def test_a_lone_channel_and_a_batch_have_stems_of_their_shape(network):
    separator, batch = Separator(network, precision="fp32"), torch.stack([noise(9000), 0.5 * noise(9000).flip(1)])
    assert torch.equal(separator(batch[0, 0], 48000)["vocals"], separator(batch[0, :1], 48000)["vocals"][0])
    stems = separator(batch, 48000)
    for song, vocals in zip(batch, stems["vocals"], strict=True):
        assert torch.equal(separator(song, 48000)["vocals"], vocals)


@pytest.mark.parametrize(
    ("song", "sample_rate", "sentence"),
    [
        (noise(1000, channels=6), 44100, "6 channels cannot be separated: mix it down"),
        (noise(1000).T, 44100, "1000 channels cannot be separated: put the channels first"),
        (noise(1000)[None, None], 44100, r"the shape \[1, 1, 2, 1000\]"),
        (torch.zeros(()), 44100, r"the shape \[\]"),
        ((noise(1000) * 1000).long(), 44100, "int64 have no full scale"),
        (noise(1000) > 0, 44100, "bool have no full scale"),
        (noise(1000) + 0j, 44100, "complex64 have no full scale"),
        ("song.wav", 44100, "not an array of samples"),
        (noise(1000), 0, "above 0, not 0"),
        (noise(1000), -44100, "above 0, not -44100"),
        (noise(1000), float("nan"), "above 0, not nan"),
        (noise(1000), 10**12, "above 0, not 1000000000000"),
        (noise(1000), 44100.5, "above 0, not 44100.5"),
        (noise(1000), True, "above 0, not True"),
        (noise(1000), None, "must be a number of hertz, not None"),
    ],
)
def test_what_is_no_song_is_refused_in_a_sentence(network, song, sample_rate, sentence):
    with pytest.raises(UserError, match=sentence):
        Separator(network)(song, sample_rate)
    if sample_rate == 0:  # where None is the network's own
        with pytest.raises(UserError, match=sentence):
            list(Separator(network).stream([song], sample_rate))


def test_a_lone_name_is_one_stem(network, tmp_path):
    assert tuple(Separator(network, "accompaniment")(noise(1000), 44100)) == ("accompaniment",)
    weights = random_weights(tmp_path / "drums.safetensors", ("drums",))
    assert Separator.load(weights, torch.device("cpu"), "drums").stems == ("drums",)
    for stem in ("piano", ["vocals", 3]):
        with pytest.raises(UserError, match=r"do not separate (piano|3):"):
            Separator(network, stem)
    with pytest.raises(UserError, match="no precision called fp16"):
        Separator(network, precision="fp16")


def test_four_stems_give_any_choice_of_stems():
    network, song = random_network(STEMS), noise(20000)
    stems = Separator(network)(song, 44100)
    assert tuple(stems) == STEMS
    two = Separator(network, ["vocals", "accompaniment"])(song, 44100)
    assert torch.equal(two["vocals"], stems["vocals"])
    torch.testing.assert_close(two["accompaniment"], stems["drums"] + stems["bass"] + stems["other"], atol=1e-6, rtol=0)
    assert tuple(Separator(network, ["bass", "no_drums"])(song, 44100)) == ("bass", "no_drums")


@pytest.mark.parametrize(
    ("targets", "stems", "masked"),
    [
        (STEMS, STEMS, ("vocals", "drums", "bass")),
        (STEMS, ("vocals", "accompaniment"), ("vocals",)),
        (STEMS, ("other",), ("other",)),
        (STEMS, ("no_other", "other", "bass"), ("bass", "other")),
        (STEMS, ("accompaniment", "no_drums", "no_bass", "no_other"), ("vocals", "drums", "bass")),
        (("vocals",), ("accompaniment",), ("vocals",)),
    ],
)
def test_only_what_stems_are_made_of_is_masked(targets, stems, masked):
    network, song = random_network(targets), noise(20000)
    separator, everything = Separator(network, stems), Separator(network)(song, 44100)
    assert separator.masked == masked
    for stem, waveform in separator(song, 44100).items():
        wanted = everything[stem] if stem in everything else song - everything[TARGET_OF_REST[stem]]
        torch.testing.assert_close(waveform, wanted, atol=1e-6, rtol=0)


def test_stems_that_the_weights_lack_are_refused(network):
    with pytest.raises(UserError, match="do not separate drums"):
        Separator(network, ["vocals", "drums"])


def test_weights_are_loaded_with_what_they_separate(tmp_path):
    weights = random_weights(tmp_path / "drums.safetensors", ("drums",))
    stems = Separator.load(weights, device="cpu")(noise(1000), 44100)
    assert tuple(stems) == ("drums", "no_drums")


def test_weights_that_are_missing_or_foreign_are_refused(tmp_path):
    (tmp_path / "foreign.safetensors").write_text("no weights at all")
    for name in ("missing.safetensors", "foreign.safetensors"):
        with pytest.raises(UserError, match=name):
            Separator.load(tmp_path / name)


def test_the_shipped_weights_are_chosen_by_the_stems(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained_module, "pretrained", lambda name, engine: tmp_path / name)

    def chosen(*stems: str) -> str:
        return Path(default_weights(stems)).name

    assert chosen() == "vocals" and chosen("drums", "bass") == "all"
    (tmp_path / "all").touch()
    assert chosen("vocals", "accompaniment") == chosen("drums", "no_drums") == "all"
    (tmp_path / "vocals").touch()
    assert chosen("vocals", "accompaniment") == "vocals" and chosen("drums") == "all"
    with pytest.raises(UserError, match="no stem called vocal:"):
        default_weights(["vocal"])


def test_sdr_is_the_energy_of_the_reference_against_that_of_the_error():
    reference = torch.tensor([[3.0, 0.0], [0.0, 4.0]])  # energy 25
    estimate = torch.tensor([[3.0, 0.5], [0.0, 4.0]])  # error 0.25
    assert sdr(reference, estimate) == pytest.approx(20.0)
    assert sdr(reference, torch.zeros(2, 2)) == pytest.approx(0.0)
    assert sdr(reference, 2 * reference) == pytest.approx(0.0)
    assert sdr(reference, -reference) == pytest.approx(-10 * math.log10(4))


def test_sdr_of_silence_and_of_perfection_is_a_number():
    silence, sound = torch.zeros(2, 5), torch.ones(2, 5)
    for reference, estimate in ((silence, silence), (silence, sound), (sound, sound)):
        assert math.isfinite(sdr(reference, estimate))
    assert sdr(sound, sound) > 100
