"""Step 2: train a network on a store."""
