"""A number with its unit: what is read as one, and when a reply is right."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.metrics.comparison import quantity_of
from agent.metrics.number_metrics import ToleranceOptions, quantity
from agent.types import Field
from tests.cases import each_case

CHECK = quantity(ToleranceOptions(), Field("amount"))


@each_case(
    ("text", "found"),
    [
        ("12 kg", (12, "kg")),
        ("12kg", (12, "kg")),
        ("1,250 g", (1250, "g")),
        ("-8 °C", (-8, "°C")),
        ("−8 °C", (-8, "°C")),
        ("EUR 12", (12, "EUR")),
        ("12.50 €", (12.5, "€")),
        ("-$3", (-3, "$")),
        ("40 %", (40, "%")),
        ("5 m²", (5, "m²")),
        ("6.5 l/100 km", (6.5, "l/100 km")),
        ("5 business days", (5, "business days")),
        ("12 kg.", (12, "kg")),
        ("12", None),
        ("kg", None),
        ("3,5 h", None),
        ("007b", None),
        ("10-20 kg", None),
        ("2026-11-01", None),
        ("10:30", None),
        ("$5 each", None),
        ("", None),
    ],
)
def test_a_number_and_a_unit_and_nothing_else_are_a_quantity(text: str, found: tuple[float, str] | None) -> None:
    assert quantity_of(text) == found


@each_case(
    ("label", "reply"),
    [
        ("12 kg", "12kg"),
        ("12 kg", "It weighs **12.0 KG**."),
        ("12 kg", "12 kg = 12 kg"),
        ("1250 g", "1,250 g"),
        ("45 min", "45 min."),
        ("5 m2", "about 5 m2"),
        ("6.5 l/100 km", "it takes 6.5 l/100 km"),
        ("-8 °C", "−8°C"),
        ("$20", "20 $"),
        ("$20", "- $20.00"),
        ("-$3", "-$3"),
        ("EUR 12", "12 EUR"),
        ("5 %", "5 %, I think"),
    ],
)
def test_a_reply_is_right_however_the_number_and_its_unit_are_written(label: str, reply: str) -> None:
    assert CHECK(reply, label) == (1.0, "")


@each_case(
    ("label", "reply", "why"),
    [
        ("12 kg", "13 kg", "got 13 kg"),
        ("12 kg", "12", "the unit kg is not next to the number"),
        ("12 kg", "12 g", "the unit kg is not next to"),
        ("12 kg", "12 kgs", "the unit kg is not next to"),
        ("5 km", "5 km/h", "the unit km is not next to"),
        ("5 m", "5 m²", "the unit m is not next to"),
        ("5 m", "5 m2", "it holds several numbers"),
        ("5 min", "5 minutes", "the unit min is not next to"),
        ("12 kg", "10-12 kg", "it holds several numbers"),
        ("12 kg", "12 kg or 26 lb", "it holds several numbers"),
        ("12 kg", "12 kg, 12 g, 13 h", "it holds several numbers"),
        ("12 kg", "twelve kg", "it holds no number in digits"),
        ("3.5 h", "3,5 h", "it holds no number in digits"),
        ("-8 °C", "8 °C", "got 8 °C"),
        ("$3", "-$3", "got -$3"),
        ("12 kg", "", "it holds no number"),
    ],
)
def test_a_reply_that_is_wrong_says_why(label: str, reply: str, why: str) -> None:
    value, reason = CHECK(reply, label)
    assert value == 0.0
    assert why in reason


def test_the_tolerance_is_of_the_number_and_not_of_the_unit() -> None:
    check = quantity(ToleranceOptions(tolerance=0.5), Field("amount"))
    assert [check(reply, "12 kg")[0] for reply in ("12.5 kg", "11.4 kg", "12 g")] == [1.0, 0.0, 0.0]


def test_a_label_without_a_unit_leaves_its_row_unscored() -> None:
    assert CHECK("12 kg", "12") == (None, "the label 12 is no number with a unit")


@given(st.floats(-1e6, 1e6).map(lambda number: round(number, 3)), st.sampled_from(["kg", "°C", "m²", "fl oz", "%"]))
def test_a_quantity_is_read_back_as_it_was_written(number: float, unit: str) -> None:
    text = f"{number:,} {unit}"
    assert quantity_of(text) == (number, unit)
    assert CHECK(f"I would say {text}", text)[0] == 1.0
    assert CHECK(f"{number + 1:,} {unit}", text)[0] == 0.0


@given(st.text(alphabet="0123456789.,-−+ $kg\0°C/", max_size=60), st.sampled_from(["12 kg", "$3", "4 °C"]))
def test_any_reply_gets_a_score(reply: str, label: str) -> None:
    assert CHECK(reply, label)[0] in (0.0, 1.0)
