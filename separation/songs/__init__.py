"""Step 4: separate songs into stems, and write a page to listen to them."""
