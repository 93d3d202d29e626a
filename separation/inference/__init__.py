"""The masking network as users meet it: its settings, its weights file, and the `Separator`."""
