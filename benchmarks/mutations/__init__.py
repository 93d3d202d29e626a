"""Files as they come: damaged, of other programs, edited by hand. Each is refused in a sentence, or it works."""
