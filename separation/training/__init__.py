"""Step 2: a store and a config become weights."""
