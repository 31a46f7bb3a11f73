"""What is secret goes, all else stays: letter for letter, and as the same object."""

from __future__ import annotations

import json
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from agent.redact import mask, rare_secrets_in, redact, secrets_in, without_password
from tests.cases import each_case

SECRET = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=6, max_size=40)


@given(st.text(), st.lists(SECRET, max_size=5), st.text())
def test_no_secret_is_left_as_it_is_as_json_or_as_a_url_writes_it(before: str, secrets: list[str], after: str) -> None:
    for secret in secrets:
        for form in (secret, json.dumps(secret)[1:-1], quote(secret, "")):
            masked = mask(f"{before}{form}{after}", tuple(secrets))
            assert form not in masked.replace("[key]", "")
            assert secret not in masked.replace("[key]", "")


@given(st.text(alphabet="abc .,\n"), st.lists(st.text(alphabet="ABC", min_size=6), max_size=3))
def test_a_text_without_a_secret_is_the_same_object(text: str, secrets: list[str]) -> None:
    assert mask(text, tuple(secrets)) is text
    assert redact(text, tuple(secrets)) is text


def test_a_secret_that_holds_another_goes_as_a_whole() -> None:
    assert mask("it is secret-long-form.", ("secret-long", "secret-long-form")) == "it is [key]."
    assert mask("none of them", ("none", "", "them")) == "none of them", "a short dummy is no secret"


@each_case(
    ("text", "shown"),
    [
        ("key sk-proj-abc123 and 'Bearer xyz.123';", "key [key] and 'Bearer [key]';"),
        ("Incorrect API key: sk-abc****wxyz.", "Incorrect API key: [key]"),
        ("gsk-0123456789, XAI-0123456789, AIzaSyA1234567890", "[key], [key], [key]"),
        ("sk-abcdefghijklmnopqrstuvwxyz", "[key]"),
    ],
)
def test_what_looks_like_a_key_is_taken_out_of_what_is_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert mask(text, ()) is text


@each_case("text", ["use sk-learn", "the bearer of bad news", "bearer certificates", "task-12345678"])
def test_words_that_are_no_keys_stay(text: str) -> None:
    assert redact(text) is text


SECRETS = "OPENAI_API_KEY api_key_2 HF_TOKEN APP_SECRET APP_SECRET_KEY OPENAI_ADMIN_KEY DB_PASSWORD PGPASSWORD"


@each_case("name", SECRETS.split())
def test_a_variable_with_the_name_of_a_secret_holds_one(name: str) -> None:
    assert secrets_in({name: "value-of-it"}) == ("value-of-it",)
    assert secrets_in({name: "short"}) == ()


@each_case("name", ["HOME", "MAX_TOKENS", "SORT_KEY", "TOKENIZERS_PARALLELISM", "SECRETARY"])
def test_other_variables_hold_none(name: str) -> None:
    assert secrets_in({name: "value-of-it"}) == ()


def test_the_values_of_headers_of_ones_own_are_secret_and_their_names_are_not() -> None:
    headers = "X-Gateway-Auth: gateway-secret\nAuthorization: Basic dXNlcjpwYXNz\nno header at all\nX-Team: a"
    found = secrets_in({"ANTHROPIC_CUSTOM_HEADERS": headers})
    assert set(found) == {"gateway-secret", "Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"}
    assert secrets_in({"OPENAI_CUSTOM_HEADERS": "X-A: value:with:colons"}) == ("value:with:colons",)


def test_the_login_in_an_address_is_secret_as_it_stands_and_decoded() -> None:
    found = secrets_in(
        {"https_proxy": "http://user:pass%40word1@proxy:3128", "INDEX": "https://token-0123@host/simple"}
    )
    assert set(found) == {"user:pass%40word1", "pass%40word1", "pass@word1", "token-0123"}
    assert secrets_in({"A": "http://host/a@b", "B": "http://[broken@", "C": "mail me @ home"}) == ()


@each_case("password", ["s3cret", "p@ss@word", "p/a?s#s", "a:b"])
def test_the_whole_password_of_an_address_goes_and_its_host_stays(password: str) -> None:
    said = without_password(f"cannot reach postgresql://me:{password}@host:5432/db?sslmode=require today")
    assert said == "cannot reach postgresql://me:[key]@host:5432/db?sslmode=require today"
    assert without_password("https://host/a:b c@d") == "https://host/a:b c@d"


def test_what_a_text_may_say_by_chance_is_a_secret_of_error_texts_only() -> None:
    words = {"MYSQL_ROOT_PASSWORD": "password", "A_TOKEN": "20260101", "OPENAI_CUSTOM_HEADERS": "X-Team: marketing"}
    assert set(secrets_in(words)) == {"password", "20260101", "marketing"}
    assert rare_secrets_in(words) == ()
    rare = {"A_API_KEY": "openkeys", "A_PASSWORD": "hunter2hunter", "A_SECRET": "correct-horse-it-is"}
    assert set(rare_secrets_in(rare)) == set(rare.values())
