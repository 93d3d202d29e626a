from __future__ import annotations

import pytest

from separation.stems import STEMS, rest_name, source_names


@pytest.mark.parametrize(
    ("targets", "rest"),
    [
        (["vocals"], "accompaniment"),
        (["drums"], "no_drums"),
        (["drums", "bass"], "no_drums_bass"),
        (STEMS, None),
        (STEMS[::-1], None),
    ],
)
def test_what_is_left_of_a_song_is_named_after_what_was_taken_out(targets, rest):
    assert rest_name(targets) == rest
    assert source_names(targets) == (*targets, *([rest] if rest else []))
