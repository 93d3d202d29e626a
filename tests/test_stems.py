from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import REPOSITORY

from separation.stems import FOUR, STEMS, rest_name, rest_parts, source_names, with_aliases


@pytest.mark.parametrize(
    ("targets", "rest"),
    [
        (["vocals"], "accompaniment"),
        (["drums"], "no_drums"),
        (["drums", "bass"], "no_drums_bass"),
        (FOUR, None),
        (FOUR[::-1], None),
        ((*FOUR, "guitar"), None),
    ],
)
def test_what_is_left_of_a_song_is_named_after_what_was_taken_out(targets, rest):
    assert rest_name(targets) == rest
    assert source_names(targets) == (*targets, *([rest] if rest else []))


@pytest.mark.parametrize(
    ("parts", "targets", "right"),
    [
        (("mixture", "vocals", "drums"), ("drums",), {"mixture": 1, "drums": -1}),
        (("mixture", "drums"), ("vocals",), None),
        (FOUR, ("drums",), {"vocals": 1, "bass": 1, "other": 1}),
        (("drums", "bass"), ("vocals",), {"drums": 1, "bass": 1}),
        (("drums", "bass", "other"), ("vocals",), {"drums": 1, "bass": 1, "other": 1}),
        (("mixture", *FOUR), ("guitar",), None),
        (FOUR, ("guitar",), None),  # it may sound in `other`
        (("vocals", "drums"), ("guitar",), {"vocals": 1, "drums": 1}),
    ],
)
def test_the_rest_of_a_song_is_told_by_the_parts_that_are_there(parts, targets, right):
    assert rest_parts(parts, targets) == right


def test_a_new_stem_is_one_more_name_in_the_table():
    """Networks of today still make up the whole song, and one for the new stem has a rest that is named after it."""
    code = """
import sys
from pathlib import Path
source = Path("separation/stems.py").read_text(encoding="utf-8")
namespace = {}
line = "    *FOUR,\\n"
assert source.count(line) == 1
exec(source.replace(line, line + '    "guitar",\\n'), namespace)
assert namespace["PARTS"][5] == "guitar", namespace["PARTS"]
assert namespace["source_names"](["guitar"]) == ("guitar", "no_guitar")
assert namespace["source_names"](namespace["FOUR"]) == ("vocals", "drums", "bass", "other")
song = ("vocals", "drums", "bass", "guitar", "other")
assert namespace["rest_parts"](song, ["guitar"]) == dict.fromkeys(("vocals", "drums", "bass", "other"), 1)
assert namespace["rest_parts"](song, ["vocals"]) == dict.fromkeys(("drums", "bass", "other", "guitar"), 1)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_aliases_are_named_with_their_stems():
    assert with_aliases(STEMS[:2]) == "vocals (or acapella), drums"
