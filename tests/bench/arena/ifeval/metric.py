"""The rules of IFEval: what a text must look like, each checked by a few lines. Every rule of a row must hold.

A row's label is a JSON list of [rule, its arguments]. Words and sentences are cut by expressions, not by a tokenizer;
the language of a text is not checked, so rows with `language:response_language` are left out of the set.

Source: Zhou et al. 2023, Instruction-Following Evaluation for Large Language Models (arXiv 2311.07911), table 1.
"""

import json
import re
from collections.abc import Callable
from typing import Any

UNCHECKED = "language:response_language"
CONSTRAINED = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
Arguments = dict[str, Any]


def metric(example: Arguments, prediction: Arguments) -> Arguments:
    """1.0 where the response keeps all rules of its row, with those that it breaks as the reason otherwise."""
    found = broken(str(prediction["fields"]["response"]), example["labels"]["response"])
    return {"value": float(not found), "reason": f"The response breaks: {'; '.join(found)}." if found else ""}


def broken(text: str, rules: str) -> list[str]:
    """The rules of `rules` (JSON) that `text` breaks, each with its arguments."""
    return [
        f"{name.partition(':')[2].replace('_', ' ')} {json.dumps(arguments) if arguments else ''}".strip()
        for name, arguments in json.loads(rules)
        if not RULES[name](text, arguments)
    ]


def _holds(relation: str, found: int, wanted: int) -> bool:
    return found >= wanted if relation == "at least" else found < wanted


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def _sentences(text: str) -> int:
    return len([part for part in re.split(r"(?<=[.!?])[\"')\]]*\s+|\n+", text) if re.search(r"\w", part)])


def _paragraphs(text: str, mark: str) -> list[str]:
    return [part.strip() for part in re.split(mark, text) if part.strip()]


def _has_paragraphs(text: str, a: Arguments) -> bool:
    """Require this number of parts between `***`; none in the middle is empty."""
    parts = [part.strip() for part in re.split(r"\s?\*\*\*\s?", text)]
    return all(parts[1:-1]) and len([part for part in parts if part]) == a["num_paragraphs"]


def _first_word(text: str, a: Arguments) -> bool:
    parts = _paragraphs(text, r"\n\n")
    at = a["nth_paragraph"] - 1
    if len(parts) != a["num_paragraphs"] or at >= len(parts):
        return False
    return parts[at].split()[0].strip("'\".,?!*_#").casefold() == a["first_word"].casefold()


def _highlights(text: str) -> int:
    return len([part for part in re.findall(r"\*{1,2}([^\n*]+)\*{1,2}", text) if part.strip()])


def _bullets(text: str) -> int:
    return len(re.findall(r"^\s*(?:\*(?!\*)|-)", text, re.MULTILINE))


def _capital_words(text: str) -> int:
    return len([word for word in _words(text) if word.isupper()])


def _two_responses(text: str, a: Arguments) -> bool:
    parts = [part.strip() for part in text.split("******")]
    inner = [part for at, part in enumerate(parts) if part or 0 < at < len(parts) - 1]
    return len(inner) == 2 and inner[0] != inner[1]


def _is_json(text: str, a: Arguments) -> bool:
    try:
        json.loads(re.sub(r"^\s*```(?:json)?|```\s*$", "", text, flags=re.IGNORECASE))
    except ValueError:
        return False
    return True


def _found(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.IGNORECASE))


def _postscript(text: str, a: Arguments) -> bool:
    letters = [re.escape(letter) for letter in a["postscript_marker"] if letter.isalpha()]
    return bool(_found(r"\.?\s?".join(letters), text))


RULES: dict[str, Callable[[str, Arguments], bool]] = {
    "punctuation:no_comma": lambda text, a: "," not in text,
    "length_constraints:number_words": lambda text, a: _holds(a["relation"], len(_words(text)), a["num_words"]),
    "length_constraints:number_sentences": lambda text, a: _holds(a["relation"], _sentences(text), a["num_sentences"]),
    "length_constraints:number_paragraphs": _has_paragraphs,
    "length_constraints:nth_paragraph_first_word": _first_word,
    "keywords:existence": lambda text, a: all(_found(re.escape(word), text) for word in a["keywords"]),
    "keywords:forbidden_words": lambda text, a: (
        not any(_found(rf"\b{re.escape(word)}\b", text) for word in a["forbidden_words"])
    ),
    "keywords:frequency": lambda text, a: _holds(a["relation"], _found(re.escape(a["keyword"]), text), a["frequency"]),
    "keywords:letter_frequency": lambda text, a: _holds(
        a["let_relation"], text.lower().count(a["letter"].lower()), a["let_frequency"]
    ),
    "change_case:english_lowercase": lambda text, a: text == text.lower(),
    "change_case:english_capital": lambda text, a: text.isupper(),
    "change_case:capital_word_frequency": lambda text, a: _holds(
        a["capital_relation"], _capital_words(text), a["capital_frequency"]
    ),
    "startend:quotation": lambda text, a: len(text.strip()) > 1 and text.strip()[0] == text.strip()[-1] == '"',
    "startend:end_checker": lambda text, a: (
        text.strip().strip('"').casefold().endswith(a["end_phrase"].strip().casefold())
    ),
    "detectable_format:title": lambda text, a: any(part.strip() for part in re.findall(r"<<([^\n]+)>>", text)),
    "detectable_format:number_highlighted_sections": lambda text, a: _highlights(text) >= a["num_highlights"],
    "detectable_format:number_bullet_lists": lambda text, a: _bullets(text) == a["num_bullets"],
    "detectable_format:multiple_sections": lambda text, a: (
        len(re.findall(rf"{re.escape(a['section_spliter'])}\s?\d+", text)) >= a["num_sections"]
    ),
    "detectable_format:json_format": _is_json,
    "detectable_format:constrained_response": lambda text, a: any(answer in text for answer in CONSTRAINED),
    "detectable_content:number_placeholders": lambda text, a: (
        len(re.findall(r"\[[^\]]*\]", text)) >= a["num_placeholders"]
    ),
    "detectable_content:postscript": _postscript,
    "combination:repeat_prompt": lambda text, a: (
        text.strip().casefold().startswith(a["prompt_to_repeat"].strip().casefold())
    ),
    "combination:two_responses": _two_responses,
}
