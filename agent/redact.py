"""Keep secrets out of everything that is written or shown.

`mask` removes secrets that are known by value, from prompts and replies; only values that no text holds by chance
(`rare_secrets_in`). `redact` also removes what looks like a key, from error texts and whatever is shown.
`silence_tracing` switches off tracing, telemetry and gateways of third parties (LangChain, DSPy, LiteLLM,
OpenTelemetry and others), which a shell may have switched on for other work.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

PLACEHOLDER = "[key]"
_SHORTEST = 6  # characters of a secret that is handed over; shorter ones are dummies
_SHORTEST_FOUND = 8  # characters of a secret that is found in the environment
_RARE = 16  # characters of one that no text holds by chance, whatever it is made of
_NAME = re.compile(r".*API_KEY.*|.*_(TOKEN|SECRET|(SECRET|ADMIN|ACCESS|PRIVATE)_KEY)|.*PASSWORD", re.I)
_LIKELY = ("sk-", "xai-", "aiza", "bearer ")  # a key's pattern begins with one of these, `gsk-` holds one
_KEY = re.compile(
    r"\b(?:(?:g?sk|xai)-(?=[\w*.\-]*[\d*]|[\w\-]{20})[\w*.\-]{8,}|AIza[\w\-]{8,})"
    r"|(?<=bearer )(?=[^\s'\",}]*\d|[^\s'\",}]{20})[^\s'\",}]{6,}",
    re.I,
)

_LOGIN = re.compile(r"(://[^\s/:@]*:)(\S*+)")
_QUERY_PASSWORD = re.compile(r"([?&]\w*password=)[^&\s]*", re.I)


def secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of an environment: key-like variables, logins in addresses, custom headers.

    A login counts as written and decoded, a header (of ..._CUSTOM_HEADERS) with and without its scheme (`Basic ...`).
    """
    found: set[str] = set()
    for name, value in environ.items():
        if _NAME.fullmatch(name):
            found.add(value.strip())
        if name.upper().endswith("_CUSTOM_HEADERS"):
            headers = [line.partition(":")[2].strip() for line in value.splitlines()]
            found.update(headers, (header.rpartition(" ")[2] for header in headers))
        if "://" in value and "@" in value:
            found.update(_credentials(value))
    return tuple(sorted(secret for secret in found if len(secret) >= _SHORTEST_FOUND))


def rare_secrets_in(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the secrets of `secrets_in` that no text holds by chance. A password may be a common word."""
    keys = {value.strip() for name, value in environ.items() if "API_KEY" in name.upper()}
    return tuple(
        secret
        for secret in secrets_in(environ)
        if secret in keys or len(secret) >= _RARE or (any(map(str.isalpha, secret)) and any(map(str.isdigit, secret)))
    )


def _credentials(address: str) -> Iterable[str]:
    try:
        login = urlsplit(address.strip()).netloc.rpartition("@")[0]
    except ValueError:
        return ()
    user, colon, password = login.partition(":")
    return (login, password, unquote(password)) if colon else (user,)


def mask(text: str, secrets: tuple[str, ...]) -> str:
    """Replace `secrets` in `text` by `[key]`: as written, in JSON and in URLs.

    Secrets have 6 characters or more.

    >>> mask("key: s3cret!", ("s3cret!",))
    'key: [key]'
    """
    forms, substitute = _masker(secrets)
    for form in forms:  # `in` is many times faster than a regex, and nearly every text holds none
        if form in text:
            return substitute(text)
    return text


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Mask secrets and whatever looks like a key (`sk-...`, `gsk-...`, `xai-...`, `AIza...`, `Bearer ...`)."""
    text = mask(text, secrets)
    folded = text.lower()
    if any(start in folded for start in _LIKELY):
        text = _KEY.sub(PLACEHOLDER, text)
    return text


def without_password(text: str) -> str:
    """Replace the passwords in the addresses of a text, such as that of a database.

    >>> without_password("postgresql://me:s3cret@host/db?password=s3cret&sslmode=require")
    'postgresql://me:[key]@host/db?password=[key]&sslmode=require'
    """
    return _QUERY_PASSWORD.sub(rf"\1{PLACEHOLDER}", _LOGIN.sub(_without_login, text))


def _without_login(found: re.Match[str]) -> str:
    _, at, host = found[2].rpartition("@")  # the last one: a password may hold others
    return f"{found[1]}{PLACEHOLDER}@{host}" if at else found[0]


@lru_cache(maxsize=256)
def _masker(secrets: tuple[str, ...]) -> tuple[tuple[str, ...], Callable[[str], str]]:
    long = [secret for secret in secrets if len(secret) >= _SHORTEST]
    forms = {
        form for s in long for form in (s, json.dumps(s)[1:-1], json.dumps(s, ensure_ascii=False)[1:-1], quote(s, ""))
    }
    ordered = tuple(sorted(forms, key=lambda form: (-len(form), form)))
    pattern = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
    return ordered, lambda text: pattern.sub(PLACEHOLDER, text)


# -- tracing of third parties -----------------------------------------------------------------------------------------

ALLOW_TRACING = "OPTIMIZE_ALLOW_TRACING"

_SENDS = re.compile(
    r"(LANGSMITH|LANGCHAIN)_(.*TRACING.*|HANDLER|OTEL_.*|ENDPOINT|RUNS_ENDPOINTS)"
    r"|LANGSMITH_GATEWAY"  # sends the calls themselves through LangSmith
    r"|OTEL_(EXPORTER_.*|.*_EXPORTER|INSTRUMENTATION_GENAI_.*)"
    r"|LITELLM_(.*CALLBACKS?|TELEMETRY)"
    r"|MLFLOW_(TRACKING|REGISTRY)_URI|OPIK_URL_OVERRIDE"
    r"|WANDB_BASE_URL|LANGFUSE_HOST|PHOENIX_COLLECTOR_ENDPOINT|SENTRY_DSN"
)
_OFF: Mapping[str, str] = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LANGFUSE_TRACING_ENABLED": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list when it is imported
    "MLFLOW_DISABLE_TELEMETRY": "true",  # it does not take "1" for DO_NOT_TRACK
    "OPENAI_AGENTS_DISABLE_TRACING": "1",  # else it sends prompts and replies to OpenAI, whatever model it asks
    "OPIK_TRACK_DISABLE": "true",
    "OTEL_SDK_DISABLED": "true",
    "WANDB_MODE": "disabled",
}


def silence_tracing(environ: MutableMapping[str, str]) -> tuple[str, ...]:
    """Remove tracing variables and set opt-outs, unless OPTIMIZE_ALLOW_TRACING=1; return the names, sorted.

    Call it before packages that trace are imported: some read their variables only once.
    """
    if environ.get(ALLOW_TRACING) == "1":
        return ()
    removed = tuple(sorted(name for name in environ if _SENDS.fullmatch(name)))
    for name in removed:
        del environ[name]
    environ.update(_OFF)
    return removed


def silence(report: Callable[[str], None] | None = None) -> None:
    """Call `silence_tracing` for this process. `report` gets a line if a variable was removed."""
    removed = silence_tracing(os.environ)
    if removed and report is not None:
        report(f"tracing is off: {', '.join(removed)} ignored ({ALLOW_TRACING}=1 allows it)")
