import json
import math
import time

from hypothesis import given
from hypothesis import strategies as st

from agent.prompt.reply_parser import parse_reply, reasons_of
from agent.prompt.value_readers import joined
from agent.types import Field
from tests.cases import each_case

CHOICE = Field("team", "choice", choices=("account", "account changes", "billing", "card_payment"))
NUMBER = Field("total", "number")
JSON = Field("data", "json")
TEXT = Field("reply", "text")
SEVERAL = (CHOICE, NUMBER, TEXT)


def value(reply, field, *, reasoning=False):
    prediction = parse_reply(reply, (field,), reasoning=reasoning)
    assert prediction.raw == reply
    assert bool(prediction.fields) != bool(prediction.error)
    return prediction.fields.get(field.name), prediction.error


LETTERS = Field("grade", "choice", choices=("A", "B", "I"))
LATE = Field("late", "choice", choices=("yes", "no"))
SPAM = Field("kind", "choice", choices=("spam", "not spam"))
LEVELS = Field("n", "choice", choices=("1", "-1", "2"))
AN_ACCOUNT = "[[ ## reasoning ## ]]\nan account\n\n[[ ## team ## ]]\nbilling\n\n[[ ## completed ## ]]"


@each_case(
    ("field", "choice", "replies"),
    [
        # dressed, and in its declared spelling
        (CHOICE, "billing", ("billing", " **Billing.** ", '"billing"', "label: billing", "Answer = billing")),
        (
            CHOICE,
            "billing",
            ("- billing\nor is it account?", "billing\n\nQuestion: what about my account?\nTeam: account"),
        ),
        (CHOICE, "billing", ('{"team": "billing"}', "<team>\nbilling\n</team>", "not clear, but billing")),
        (CHOICE, "billing", ("[[ ## team ## ]]\nbilling\n\n[[ ## completed ## ]]",)),
        (CHOICE, "billing", ("It could be account or card payment, yet the core is billing.\nAnswer: billing",)),
        (CHOICE, "billing", ("<think>account? card payment?\nAnswer: account</think>\n\nbilling",)),
        (CHOICE, "billing", ("account? card payment?\n</think>\n\nbilling",)),
        (CHOICE, "account", ("account",)),
        (CHOICE, "account changes", ("team: Account-Changes!", "I think it is account changes")),
        (CHOICE, "card_payment", ("card payment", "This is about `Card-Payment`, surely.")),
        (CHOICE, "card_payment", ("It is not about account changes, it is a card payment",)),
        # of one letter: no article and no pronoun
        (LETTERS, "A", ("option A", "The answer is A because it fits", "It must be A", "a", "a: Paris", "A, as said")),
        (LETTERS, "B", ("(b)", "b)", "B. because", "**B**", "B is right", "the answer is b", "option b")),
        (LETTERS, "B", ("b because it fits",)),
        (LETTERS, "I", ("the answer is I.",)),
        (
            LETTERS,
            None,
            ("This is a tricky question.", "I cannot help, as it is a medical matter.", "A parcel", "A or B?"),
        ),
        (LETTERS, None, ("I, however, cannot tell", "I'm not sure", "The answer is a tricky one")),
        # "no" denies something else, and a choice may be the denial of another
        (LATE, "no", ("My answer is no.", "No, because it is late", "the answer is no because it is late")),
        (LATE, None, ("I have no idea", "There is no evidence")),
        (SPAM, "not spam", ("This is clearly not spam.",)),
        (SPAM, None, ("it isn't spam",)),
        (Field("kind", "choice", choices=("true", "false")), None, ("It is not true that",)),
        # signs and decimals do not count as the shorter choice
        (LEVELS, "-1", ("-1", "rated -1.")),
        (LEVELS, None, ("a 1.5",)),
    ],
)
def test_a_choice_is_read_in_its_declared_spelling_and_never_guessed(field, choice, replies):
    for reply in replies:
        assert value(reply, field)[0] == choice


@each_case(
    ("reply", "why"),
    [
        ("billing or account changes", "names 2 choices"),
        ("accounting", "names none of the choices"),
        ("", "empty"),
        (" \n\t", "empty"),
        ("...", "names none"),
        ("This is definitely not a billing issue", "names none"),
        ("non-billing", "names none"),
        ("It isn't really **billing**", "names none"),
        ("account or billing?\nTeam: account\n\nMessage: two\nTeam: billing", "names 2 choices"),
        ("<think>It is about billing", "still thinks"),
    ],
)
def test_an_unclear_choice_is_never_guessed_and_the_error_says_why(reply, why):
    got, error = value(reply, CHOICE)
    assert got is None
    assert why in error


@each_case(
    ("choices", "reply", "choice"),
    [
        *(
            (("C", "C++", "C#"), reply, "C#")
            for reply in ("C#.", "**C#**", '"C#"', "Answer: C#.", "I would use C# here")
        ),
        *((("C", "C++", "C#"), reply, "C") for reply in ("C.", "**C**", "Answer: C", "I would use C")),
        *((("C", "C#"), reply, "C") for reply in ("C\nC# came later.", "Answer: C\nC# would be wrong")),
        (("No", "No."), "No\nNo. 5 is fine", "No"),
        (("A", "plan A"), "I pick plan-A.", "plan A"),
        *((("A*", "A", "B"), reply, "A*") for reply in ("A*.", '"A*"', "Grade: A*")),
        *((("A*", "A", "B"), reply, "A") for reply in ("*A*", "**A**", "A")),
        (("[URGENT]", "URGENT"), "**[URGENT]**", "[URGENT]"),
        (("[URGENT]", "URGENT"), "**URGENT**", "URGENT"),
    ],
)
def test_marks_that_belong_to_a_choice_are_no_dress(choices, reply, choice):
    assert value(reply, Field("x", "choice", choices=choices))[0] == choice


@each_case("typed", ["Cafe\u0301-bar", "Caf\u00e9-bar"])
@each_case("declared", ["Cafe\u0301 bar", "Caf\u00e9 bar"])
def test_an_accent_is_the_same_however_it_was_typed(declared, typed):
    field = Field("x", "choice", choices=(declared, "Bar"))
    for reply in (typed, f"It is the {typed}, I think.", f'{{"x": "{typed}"}}'):
        assert value(reply, field)[0] == declared


@each_case("dress", ['{{"data": {}}}', '```json\n{{"data": {}}}\n```', '{{"reasoning": "so", "data": {}}}'])
def test_json_under_its_own_name_is_unwrapped_where_the_schema_says_that_this_is_not_the_value(dress):
    made = {"age": 3, "tags": ["a"]}
    known = Field("data", "json", schema='{"type": "object", "properties": {"age": {}, "tags": {}}}')
    for inner in (json.dumps(made), json.dumps(json.dumps(made))):
        assert value(dress.format(inner), known) == (made, "")
    assert value(dress.format("[1]"), Field("data", "json", schema='{"type": "array"}'))[0] == [1]
    for schema in (None, "true", '{"type": "object"}', '{"$ref": "#"}', '{"properties": {"data": {}}}'):
        assert value('{"data": {"age": 3}}', Field("data", "json", schema=schema))[0] == {"data": {"age": 3}}
    assert value('{"data": {"age": 1}}\nAnswer: {"age": 2}', known, reasoning=True)[0] == {"age": 2}


@each_case(
    ("reply", "text"),
    [
        ("[[ ## reply ## ]]\nQuestion: why?\nAnswer: 42\n\n[[ ## completed ## ]]", "Question: why?\nAnswer: 42"),
        ("[[ ## reasoning ## ]]\nhm\n\n[[ ## reply ## ]]\nDear Sir,\n\nreply: no\n", "Dear Sir,\n\nreply: no"),
        ('{"reasoning": "r", "reply": "one\\ntwo"}', "one\ntwo"),
    ],
)
@each_case("reasoning", [False, True])
def test_a_text_in_a_section_of_its_own_is_kept_whole(reply, text, reasoning):
    assert value(reply, TEXT, reasoning=reasoning) == (text, "")


def test_a_name_is_found_whatever_its_letters_fold_to():
    plain, listed = Field("plain"), Field("obligations", "json")
    for name in ("plain", "PLAIN", "PLAİN", "Plaın"):
        got = parse_reply(f'{name}: A pays.\nobligations: ["pay"]', (plain, listed))
        assert got.fields == {"plain": "A pays.", "obligations": ["pay"]}
    assert parse_reply("class : x\nkind: y", (Field("class_"), Field("kind"))).fields == {"class_": "x", "kind": "y"}


def test_the_error_quotes_the_reply_shortened_and_lists_the_choices():
    _, error = value("blah " * 1000, CHOICE)
    assert len(error) < 300
    assert "blah blah" in error
    assert "account, account changes, billing, card_payment" in error


def test_a_long_reply_is_folded_no_more_often_for_many_choices(monkeypatch):
    folded = []

    def counted(text):
        folded.append(len(text))
        return joined(text)

    monkeypatch.setattr("agent.prompt.value_readers.joined", counted)
    many = Field("team", "choice", choices=tuple(f"team {number}" for number in range(100)))
    long = "none of them, as far as I can see. " * 30
    assert value(long, many)[0] is None
    assert len([length for length in folded if length > 500]) <= 5


@each_case(
    "reply",
    [
        *("The account looks odd.\nAnswer: billing", "Answer: account\nNo, wait.\n**Answer:** billing", AN_ACCOUNT),
        *("hm\n**Team**: billing", "maybe account\nbilling.", "Answer:\nbilling", "Answer: billing\n\nQ: my account?"),
    ],
)
def test_reasoning_is_followed_by_the_answer_after_the_last_marker_or_in_the_last_line(reply):
    assert value(reply, CHOICE, reasoning=True) == ("billing", "")


def test_reasoning_that_was_cut_before_the_answer_does_not_parse():
    got, error = value("It is about billing.\nAnswer:", CHOICE, reasoning=True)
    assert got is None
    assert "stops after its answer marker" in error


@each_case(
    ("number", "replies"),
    [
        (42, ("42", "The answer is 42 km.", "**42** because 6 times 7 is 42", "6*7 = 42")),
        (42, ("42\n\nQ: 7 apples and 8 pears?", "42\n\nProblem: Tom has 3 pens and buys 10.\nTotal: 13")),
        (1234.5, ("$1,234.50", "1'234.50", "CHF 1’234.50", "CHF1'234.50")),
        (12_000, ("12\u00a0000 €", "12\u2009000")),
        (12, ("12\u00a0%", "total: 12 of 14")),
        (1000, ("1e3", "1_000")),
        *((number, (text,)) for number, text in ((-5, "-$5"), (5, "USD 5"), (7, "€7"), (45, "45%"), (0.75, "3/4"))),
        *((number, (text,)) for number, text in ((0.5, ".5"), (-3, "−3"), (1_000_000, "1,000,000"))),
        (-10_000, ("-CHF\u00a010'000",)),
        (1_234_567, ("1\u202f234\u202f567",)),
        (40, ("Answer: 40 (x = 5)",)),
        (56, ("total = 56 (in 2 steps)",)),
    ],
)
def test_a_dressed_number_is_read(number, replies):
    for reply in replies:
        got, error = value(reply, NUMBER)
        assert (got, error) == (number, "")
        assert type(got) is type(number)


@each_case(
    "reply",
    [
        *("10-20", "1, 2, 3", "1.234,5", "1.2.3", "2024-01-05", "12:30", "6 * 7", "3 or 4", "I have 3 and get 4"),
        *("Let x = 5 be the fee. The sum due is 12.", "With n = 3 items the sum is 36"),
        *("1'234,567", "1\u202f234,50", "12 000 €", "1,234'567", "1'23", "1234'567", "2024\u00a0000", "5.1'234"),
        *("10\u00a0–\u00a020", "CHF 1'234'56", "1\u00a0234\u202f567"),
        *("none", "nan", "inf", "1e400", "1e16", "1/0", "9" * 5000, "", "0x1F"),
    ],
)
def test_an_unclear_or_unbounded_number_is_never_guessed(reply):
    got, error = value(reply, NUMBER)
    assert got is None
    assert error


@each_case(
    ("reply", "number"),
    [
        ("3 and 4 are\n7 for 2 boys\nAnswer: $7", 7),
        ("Answer: 3\nno\nTotal: 4", 4),
        ("3 boys\n3 + 4 = 7 apples", 7),
        ("of 9\nthe 3 boys have 7", 7),
        ("With n = 3 items the sum is 36", 36),
    ],
)
def test_reasoning_ends_in_the_marked_number_or_the_last_of_the_last_line(reply, number):
    assert value(reply, NUMBER, reasoning=True) == (number, "")


@each_case(
    ("schema", "reply", "data"),
    [
        ('{"type": "object"}', 'Per note [1] it is {"a": 1}', {"a": 1}),
        ('{"properties": {"a": {}}}', 'None: []\n{"a": 1}', {"a": 1}),
        ('{"type": "array"}', '{"a": 1} holds [1]', [1]),
        ('{"type": "object"}', "[1, 2]", [1, 2]),  # the schema will say what is wrong with it
        ('{"type": ["array", "object"]}', '[1] {"a": 1}', [1]),
    ],
)
def test_json_is_of_the_kind_that_its_schema_names(schema, reply, data):
    assert value(reply, Field("data", "json", schema=schema)) == (data, "")


def test_what_a_model_thought_first_is_no_value():
    draft = '<think>first {"a": 0}</think>'
    assert value(f'{draft}\n{{"a": 1}}', JSON) == ({"a": 1}, "")
    assert value("<thinking>\nhm\n</thinking>\n\nhello", TEXT) == ("hello", "")
    assert value("write <think> and </think> around it", TEXT) == ("write <think> and </think> around it", "")


@each_case(
    ("reply", "why"),
    [
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": 1e999}', "not JSON"),
        ('{"a": 1', "never closed"),
        ("{note: [1]}", "broken JSON"),
        ("[" * 70 + "]" * 70, "nested deeper"),
        ("42", "holds no JSON"),
    ],
)
def test_broken_json_is_not_repaired(reply, why):
    got, error = value(reply, JSON)
    assert got is None
    assert why in error


def test_json_after_reasoning_is_the_marked_or_the_last_one():
    assert value('from [1] we get\nAnswer:\n{"a":\n 2}', JSON, reasoning=True)[0] == {"a": 2}
    assert value('from [1] we get\n{"a":\n 2}', JSON, reasoning=True)[0] == {"a": 2}
    assert value('from [1] we get\n{"a":\n 2', JSON, reasoning=True)[0] is None
    assert value('from {"a": 2} we get\n[[1}', JSON, reasoning=True)[0] == {"a": 2}


def test_text_is_the_whole_reply_or_what_follows_the_marker():
    assert value("  two\nlines \n", TEXT) == ("two\nlines", "")
    assert value("think\nAnswer: two\nlines", TEXT, reasoning=True) == ("two\nlines", "")


@each_case(
    "reply",
    [
        "team: billing\ntotal: 3\nreply: Dear you,\nbye",
        "**Team:** Billing\n- Total: $3\nReply: Dear you,\nbye",
        '```json\n{"team": "billing", "total": 3.0, "reply": "Dear you,\\nbye", "more": 1}\n```',
        "[[ ## team ## ]]\nbilling\n\n[[ ## total ## ]]\n3\n\n[[ ## reply ## ]]\nDear you,\nbye\n[[ ## completed ## ]]",
    ],
)
def test_several_outputs_are_read_from_lines_sections_or_one_object(reply):
    prediction = parse_reply(reply, SEVERAL)
    assert prediction.fields == {"team": "billing", "total": 3, "reply": "Dear you,\nbye"}
    assert prediction.error == ""


def test_several_outputs_come_from_the_first_object_and_true_is_no_number_in_it():
    reply = json.dumps({"team": "billing", "total": True, "reply": "Hello."})
    prediction = parse_reply(f"{reply}\n{json.dumps({'team': 'account', 'total': 3, 'reply': 'Bye.'})}", SEVERAL)
    assert prediction.fields == {"team": "billing", "reply": "Hello."}
    assert prediction.error.startswith("total: ")
    assert value('{"team": "billing"}\n{"team": "account"}', CHOICE) == ("billing", "")


@each_case("reasoning", [True, False])
def test_of_an_output_given_twice_the_first_counts_or_after_reasons_the_last(reasoning):
    reply = "team: billing\ntotal: 3\nreply: Hello.\nteam: account"
    assert parse_reply(reply, SEVERAL, reasoning=reasoning).fields["team"] == ("account" if reasoning else "billing")


def test_missing_and_unreadable_outputs_are_named_and_the_rest_is_kept():
    prediction = parse_reply("team: cooking\ntotal: 3", SEVERAL)
    assert prediction.fields == {"total": 3}
    assert "lacks reply" in prediction.error
    assert 'team: The reply "cooking" names none' in prediction.error


fields = st.sampled_from([(CHOICE,), (NUMBER,), (JSON,), (TEXT,), SEVERAL, (CHOICE, JSON), ()])
anything = st.text(st.characters(codec=None, exclude_categories=())) | st.text('{}[]"\\,:0123456789-.$/= \n#*_ae<>')


@given(anything, fields, st.booleans())
def test_no_string_raises_and_values_are_of_the_declared_type(reply, outputs, reasoning):
    prediction = parse_reply(reply, outputs, reasoning=reasoning)
    prediction.error.encode()
    assert "\n" not in prediction.error
    assert prediction.error or set(prediction.fields) == {field.name for field in outputs}
    for field in outputs:
        if field.name in prediction.fields:
            got = prediction.fields[field.name]
            if field.type == "choice":
                assert got in field.choices
            elif field.type == "number":
                assert math.isfinite(got)
                assert abs(got) <= 1e15
            elif field.type == "json":
                json.dumps(got, allow_nan=False)
            else:
                assert isinstance(got, str)


@given(st.integers(-(10**15), 10**15), st.sampled_from(",'’\u00a0\u202f\u2009"), st.booleans())
def test_every_integer_survives_thousands_separators(number, mark, reasoning):
    assert value(f"{number:,}".replace(",", mark), NUMBER, reasoning=reasoning) == (number, "")


@given(st.dictionaries(st.text(), st.lists(st.text() | st.integers(-9, 9) | st.none())))
def test_every_object_survives_a_fence(data):
    assert value(f"Here:\n```json\n{json.dumps(data)}\n```", JSON) == (data, "")


UNITS = [
    *("[", "{", "[1,", '["\\"', "[}", "{}", "]", "- ", " ", "\n", "_", "a_", "1,", "1 ", "=1", "1/", "9", "$", "`"),
    *("1'234", "\u00a0123", "\0", "\ud800", "answer:\n", "<team>", "[[ ##", "account ", "e1", '["a",'),
]


@each_case("unit", UNITS)
@each_case("outputs", [(CHOICE,), (NUMBER,), (JSON,), SEVERAL])
def test_fifty_kilobytes_of_anything_take_linear_time(unit, outputs):
    reply = (unit * 50_000)[:50_000]
    for reasoning in (False, True):
        started = time.process_time()
        parse_reply(reply, outputs, reasoning=reasoning)
        assert time.process_time() - started < 5, "quadratic work takes minutes"


@each_case(
    ("reply", "worked"),
    [
        ("First this.\nThen that.\nAnswer: billing", "First this.\nThen that."),
        ("First this.\n**Answer:** billing\n", "First this."),
        ("Answer: no\nFirst this.\nAnswer: yes", "Answer: no\nFirst this."),
        ("First this.\nbilling", "First this."),
        ("billing", ""),
        ("Answering this needs care.\nIt is late.\nAnswer: billing", "Answering this needs care.\nIt is late."),
        ("It is late.\nTeam: billing", "It is late."),
        ("[[ ## reasoning ## ]]\nIt is late.\n\n[[ ## team ## ]]\nbilling\n\n[[ ## completed ## ]]", "It is late."),
        ("<think>hm\nAnswer: no</think>\nIt is late.\nAnswer: billing", "It is late."),
        ("", ""),
    ],
)
def test_a_solution_is_the_reply_without_its_answer(reply, worked):
    assert reasons_of(reply, (CHOICE,)) == worked


def test_a_solution_with_several_answers_is_what_stands_before_all_of_them():
    reply = "I weigh it.\nteam: account\nNo.\nteam: billing\ntotal: 4\nreply: ok"
    assert reasons_of(reply, SEVERAL) == "I weigh it.\nteam: account\nNo."


@given(st.sampled_from(CHOICE.choices), st.sampled_from(["{}", "{}.", "**{}**", "team: {}", "'{}'\nand so on"]))
def test_every_choice_survives_every_dress(choice, dress):
    assert value(dress.format(choice.upper()), CHOICE) == (choice, "")
