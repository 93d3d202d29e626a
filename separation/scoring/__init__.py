"""Step 3: score weights on test songs."""
