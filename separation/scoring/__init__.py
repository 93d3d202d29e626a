"""Step 3: weights and test songs become scores."""
