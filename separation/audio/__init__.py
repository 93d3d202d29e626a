"""Audio in and out: decoding, writing, resampling, and the project's one STFT."""
