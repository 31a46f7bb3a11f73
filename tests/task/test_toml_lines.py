"""Keys are found at their real lines, whatever strings and comments look like them."""

from hypothesis import given
from hypothesis import strategies as st

from agent.safe_data import TomlLines

TEXT = '''\
# a = 1
a = """
b = 2 # not a key
[c]
\\""" still inside
"""
b = [ # comment ]
  "[x]", # "
]
"quo.ted" = 'y = 1'
d.e = 1
[f . "g h"]
i = { j = 1 }
[[m]]
n = 1
[[m]]
n = \'\'\'
[[m]]\'\'\'
o = 1
'''


def test_keys_sections_and_tables_in_arrays_have_their_lines() -> None:
    lines = TomlLines(TEXT)
    wanted = {
        ("a",): 2, ("b",): 7, ("quo.ted",): 10, ("d", "e"): 11, ("f",): 12, ("f", "g h"): 12, ("f", "g h", "i"): 13,
        ("m", 0): 14, ("m", 0, "n"): 15, ("m", 1): 16, ("m", 1, "n"): 17, ("m", 1, "o"): 19,
    }  # fmt: skip
    assert {path: lines.of(path) for path in wanted} == wanted


def test_an_unknown_key_has_the_line_of_the_nearest_section_or_1() -> None:
    lines = TomlLines(TEXT)
    assert lines.of(("f", "g h", "i", "j")) == 13
    assert lines.of(("m", 1, "zzz")) == 16
    assert lines.of(("zzz",)) == 1
    assert lines.of(("a",), holding="[c]") == 4


@given(st.lists(st.sampled_from(["k", '"q"', "[", "]", "=", '"""', "'", "#", "\n", "a.b", "{", "}", " "])))
def test_any_text_can_be_scanned(parts: list[str]) -> None:
    lines = TomlLines("".join(parts))
    assert lines.of(("k",)) >= 1
