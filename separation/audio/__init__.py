"""Audio input and output: decoding, encoding, resampling, and the project's only STFT."""
