"""Values enter a prompt once, literally; everything else in it stays as it was written."""

import time

from hypothesis import example, given
from hypothesis import strategies as st

from agent.prompt.template import escape, fill, fill_messages, join, marks, placeholder, split
from agent.types import Message
from tests.cases import each_case

NAMES = ("x", "message", "x_1")
BITS = [
    *("{", "}", "{{", "}}", "\\", "\\\\", "{{x}}", "{{message}}", "\\{{x}}", "{{x_1}}", "{{y}}"),
    *("x", "message", "\n", " "),
]
FREE = st.text(st.characters())  # surrogates, NUL and all
TEXTS = st.one_of(FREE, st.lists(st.one_of(st.sampled_from(BITS), FREE), max_size=12).map("".join))
VALUES = st.fixed_dictionaries(dict.fromkeys(NAMES, TEXTS))
PARTS = st.lists(st.one_of(TEXTS, st.sampled_from(NAMES).map(lambda name: (name,))), max_size=8)


def read(parts, values):
    return "".join(part if isinstance(part, str) else values[part[0]] for part in parts)


def merged(parts):
    """Neighbouring texts as one, empty ones left out."""
    out = []
    for part in parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        elif part != "":
            out.append(part)
    return out


@given(PARTS, VALUES)
@example(["\\", ("x",), "\\\\", ("x",)], dict.fromkeys(NAMES, "V"))  # backslashes before a placeholder are kept
def test_joined_parts_are_filled_in_their_order_and_split_into_the_same_parts(parts, values):
    template = join(parts, NAMES)
    assert fill(template, values) == read(parts, values)
    assert marks(template, NAMES) == {part[0] for part in parts if isinstance(part, tuple)}
    assert merged(split(template, NAMES)) == merged(parts)


@given(TEXTS, VALUES)
def test_a_users_text_is_filled_to_itself_escaped_and_renders_the_same_split(text, values):
    assert fill(escape(text, NAMES), values) == text
    assert marks(escape(text, NAMES), NAMES) == set()
    parts = split(text, NAMES)
    assert join(parts, NAMES) == text
    assert fill(text, values) == read(parts, values)
    assert marks(text, NAMES) == {part[0] for part in parts if isinstance(part, tuple)}
    assert fill(text, {}) == escape(text, ()) == "".join(split(text, ())) == text
    assert marks(text, ()) == set()


@given(VALUES)
def test_values_are_never_scanned_again(values):
    template = "".join(f"<{placeholder(name)}>" for name in NAMES)
    assert fill(template, values) == "".join(f"<{values[name]}>" for name in NAMES)


@each_case(
    "template, values, filled",
    [
        ("{{x}} {{message}} {{x}}", {"x": "{{message}}", "message": "{{x}}"}, "{{message}} {{x}} {{message}}"),
        ("{{x}}{message}}", {"x": "{", "message": "!"}, "{{message}}"),  # a mark that only a value completes
        ("{{x{{x}}}}", {"x": "}}"}, "{{x}}}}"),
        ("{{x}} {{x_1}}", {"x": "a", "x_1": "b"}, "a b"),
        ("{{a.b}} {{aXb}} {{c|d}}", {"a.b": "1", "c|d": "2"}, "1 {{aXb}} 2"),  # a name is no pattern
    ],
)
def test_values_and_names_are_literal(template, values, filled):
    assert fill(template, values) == filled


@each_case(
    ("template", "filled", "found"),
    [
        ("{{x}}", "V", {"x"}),
        (r"\{{x}}", "{{x}}", set()),
        (r"\\{{x}}", r"\V", {"x"}),
        (r"\\\{{x}}", r"\{{x}}", set()),
        (r"\\\\{{x}}", r"\\V", {"x"}),
        (r"\ {{x}}", r"\ V", {"x"}),
        (r"\n\\ {x}", r"\n\\ {x}", set()),
        (r"\{{y}} {{y}}", r"\{{y}} {{y}}", set()),
        ("{{{x}}}", "{V}", {"x"}),
        (r"{\{{x}}}", "{{{x}}}", set()),
        ("{{ x }} {{X}} {{x }}", "{{ x }} {{X}} {{x }}", set()),
        ("{{x}}{{x}}", "VV", {"x"}),
        (r"{{x}}\{{x}}", "V{{x}}", {"x"}),
    ],
)
def test_backslashes_before_a_mark_count_in_pairs_and_elsewhere_are_text(template, filled, found):
    assert fill(template, {"x": "V"}) == filled
    assert marks(template, ["x"]) == found


def test_a_mark_that_spans_two_fixed_parts_is_escaped():
    assert fill(join(["{{", "x}}", ("x",)], ["x"]), {"x": "V"}) == "{{x}}V"


def test_messages_keep_their_roles_and_are_filled_one_by_one():
    template = [Message("system", r"\{{x}}"), Message("user", "{{x}}")]
    assert fill_messages(template, {"x": "{{x}}"}) == (Message("system", "{{x}}"), Message("user", "{{x}}"))


@each_case("text", ["\\" * 200_000, "{" * 200_000, "{{x" * 50_000, "\\{{x}}" * 20_000])
def test_long_runs_of_marks_and_backslashes_take_linear_time(text):
    start = time.process_time()
    assert fill(escape(text, NAMES), dict.fromkeys(NAMES, "V")) == text
    assert join(split(text, NAMES), NAMES) == text
    assert time.process_time() - start < 5
