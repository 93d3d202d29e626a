"""Step 4: songs become stems, and a page to listen to them."""
