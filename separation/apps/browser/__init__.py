"""Separating in a browser: a static folder that any server can serve."""
