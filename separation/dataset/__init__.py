"""Step 1: read datasets as tracks, and build a spectrogram store from them."""
