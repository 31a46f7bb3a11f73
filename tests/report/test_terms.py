"""Words are explained with one text each: on pages, in the legend, in the manual's glossary."""

import re
from pathlib import Path

from agent.report.html import environment
from agent.report.terms import TERMS, legend, meaning_of
from tests.report.pages import Page

GLOSSARY = Path(__file__).resolve().parents[2] / "docs" / "glossary.md"


def test_the_glossary_has_the_same_texts() -> None:
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", GLOSSARY.read_text("utf-8"), re.MULTILINE))
    assert {word: rows[word].replace("`", "") for word in TERMS} == TERMS


def test_a_word_has_the_meaning_of_its_term_and_another_text_stays_what_it_is() -> None:
    heads = {"Dev": "dev", "best found": "winner", "95 % CI": "95 % CI", "dev, corrected": "corrected dev score"}
    assert [meaning_of(text) for text in heads] == [TERMS[word] for word in heads.values()]
    template = environment().from_string("<p>{{ one|term }}</p><p>{{ two|term }}</p>")
    page = Page(template.render(one="<b>dev</b>", two="dev"))
    assert (page.structure, page.text) == (["p", "p", "abbr"], "<b>dev</b>dev")
    assert page.nodes[-1][1] == {"title": TERMS["dev"]}


def test_a_run_of_texts_explains_your_texts() -> None:
    both = legend(is_compared=True, noun="texts")
    assert both["your texts, or baseline"] == meaning_of("your texts") != meaning_of("your prompt") == TERMS["baseline"]
    assert "your own texts: trial 0" in both["your texts, or baseline"]
    assert not any("your prompt" in words or "your own prompt" in words for each in both.items() for words in each)


def test_a_run_without_a_comparison_explains_no_words_of_one() -> None:
    assert set(legend(is_compared=True)) - set(legend(is_compared=False)) == {"lift", "p-value", "held back"}
