"""The listening page, alive: songs are dropped on it in a browser, and come apart on this machine."""
