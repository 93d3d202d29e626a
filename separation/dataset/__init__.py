"""Step 1: datasets on disk become tracks, and tracks a store of spectrograms."""
