"""A part of another package, in one file, is searched, released, rendered, exported and shown."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from agent.release.formats.module_proof import load_module
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import load_prompt
from tests.cli.world import good, good_json, knowing, refused
from tests.registry.test_plugin import TOML, folder
from tests.wire import WireServer

DATED = TOML.replace("Answer with one of", "Say who takes it today; answer with one of")


def dated(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
    """Right where the last message says the date, else the same for every row."""
    text, said, _ = messages[-1]["content"].partition("\n\nToday is ")
    return knowing([{"role": "user", "content": text}], body) if said else "billing"


def test_it_is_searched_released_rendered_exported_and_shown(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("langchain_core")
    place = folder(DATED)
    with WireServer(dated) as server:
        monkeypatch.setenv("HOUSE_URL", server.url)
        result = good_json("run", place, "-m", "house/m", "--max-calls", "500", "-q")
    assert result["decision"] == "promote"
    released = Path(result["release"])
    today = f"Parcel late.\n\nToday is {date.today():%d %B %Y}."
    for file in (PROMPT_FILE, MESSAGES_FILE):
        sent = load_prompt(released.with_name(file)).render(text="Parcel late.")
        assert sent[-1]["content"].endswith(today)
    good("export", "--format", "python", "--format", "langchain", "-o", "out")
    assert load_module(Path("out/prompt.py"), "exported_today").render(text="Parcel late.") == sent
    found = load_module(Path("out/langchain_prompt.py"), "langchain_today").prompt.invoke({"text": "Parcel late."})
    assert found.to_messages()[-1].content == sent[-1]["content"]
    assert "has a part of another package" in refused(1, "export", "--format", "anthropic")[0]
    assert "(with the date of today)" in Path(good_json("report")["file"]).read_text("utf-8")
    good_json("audit", "verify")


def test_without_the_package_its_prompt_says_what_is_unknown(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.errors import ReleaseError
    from agent.prompt.parts.kinds import PARTS
    from agent.release.export import write_release
    from tests.release.formats.sample import release

    made = write_release(release(parts=(PARTS.get("today").made(),)), Path("released"))  # type: ignore[attr-defined]
    assert "Today is" in load_prompt(made).render(message="x")[-1]["content"]
    with monkeypatch.context() as gone:
        gone.setattr(PARTS, "_known", {})
        gone.setattr(PARTS, "_foreign", dict)
        with pytest.raises(ReleaseError, match="unknown key 'today'"):
            load_prompt(made)
