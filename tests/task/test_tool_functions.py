"""Python functions as tools: types become the schema, the docstring the descriptions, and nothing is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agent.errors import InputError, ProblemsError
from agent.jobs.tool_sources import given_tools
from agent.task.load import load_task
from agent.task.tool_functions import docstring_parts, tool_of_function
from agent.task.tools import read_tools, tools_in_source
from promptassay import write_tools
from tests.cli.test_tools import TASK, write_lamps
from tests.cli.world import good, refused


class Place(BaseModel):
    room: str
    floor: int = 0


def set_light(
    place: Place, power: Literal["on", "off"] = "on", level: Annotated[int, Field(ge=0, le=100)] = 100
) -> None:
    """Switches
    the light of one room.

    Args:
        place: where it is,
            in the house
        level (int): per cent

    Returns:
        Nothing.
    """
    raise AssertionError("it was called")


def stop() -> None:
    raise AssertionError("it was called")


def old_style(when: str, days: list[str] | None = None) -> str:
    """Rings.

    :param when: HH:MM
    :param list days: only where it repeats
    :returns: nothing
    """
    return when


def test_types_and_docstring_become_a_tool() -> None:
    (light, nothing, old), _ = given_tools([set_light, stop, old_style])
    assert (light.name, light.description) == ("set_light", "Switches the light of one room.")
    schema = json.loads(light.parameters)
    assert schema["required"] == ["place"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["power"] == {"default": "on", "enum": ["on", "off"], "type": "string"}
    assert schema["properties"]["level"] == {
        "default": 100, "maximum": 100, "minimum": 0, "type": "integer", "description": "per cent",
    }  # fmt: skip
    assert "$ref" not in light.parameters
    assert schema["properties"]["place"]["properties"]["floor"] == {"default": 0, "type": "integer"}
    assert (nothing.description, json.loads(nothing.parameters)["properties"]) == ("", {})
    texts = {name: about.get("description") for name, about in json.loads(old.parameters)["properties"].items()}
    assert (old.description, texts) == ("Rings.", {"when": "HH:MM", "days": "only where it repeats"})


def any_number(*rooms: str) -> None: ...


def untyped(room) -> None: ...  # type: ignore[no-untyped-def]


def no_json(room: Callable[[], int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (any_number, "cannot be given by name"),
        (untyped, "the parameter room has no type; write it, such as str"),
        (no_json, "its types have no JSON form"),
        (Place, "no function with a name"),
        (lambda room: room, "no function with a name"),
    ],
)
def test_what_is_no_tool_is_refused(function: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        tool_of_function(function)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(InputError) as error:
        write_tools([any_number, set_light, untyped, {"name": "two words"}], "tools.json")
    assert len(str(error.value).splitlines()) == 3
    with pytest.raises(InputError, match="no tools; give at least one"):
        write_tools([], "tools.json")
    assert not Path("tools.json").exists()


@given(st.text())
def test_any_docstring_is_read(text: str) -> None:
    about, arguments = docstring_parts(text)
    assert "\n" not in about
    assert all(name.isidentifier() or name[0].isdigit() for name in arguments)


FILE = '''\
from typing import Annotated, Literal

from pydantic import Field

open("ran", "w")


def lamp_on(room: Literal["hall", "attic"], level: "Annotated[int | None, Field(ge=0), 'note']" = None) -> None:
    """Lights a lamp.

    Args:
        room: where
    """
    raise SystemExit(1)


async def lamp_off(*, room: str, times: list[dict[str, float]] = []):
    """Puts a lamp out."""
'''
RUN = """\
import os

assert "PATH" in os.environ and not [name for name in os.environ if "KEY" in name]
print("said while it is loaded")
"""


def with_functions(source: str, names: str) -> None:
    write_lamps()
    Path("lamps/house.py").write_text(source)
    Path("lamps/task.toml").write_text(TASK.replace('"tools.json"', f'"house.py:{names}"'))


def test_functions_of_a_file_are_the_tools_of_a_task_and_nothing_is_run() -> None:
    with_functions(FILE, " lamp_on, lamp_off")
    for split in ("train", "dev", "test"):
        path = Path(f"lamps/{split}.jsonl")
        path.write_text(path.read_text().replace("kitchen", "hall").replace("lamp_on", "lamp_off"))
    task = load_task(Path("lamps"))
    on, off = task.tools
    assert (on.name, on.description, off.description) == ("lamp_on", "Lights a lamp.", "Puts a lamp out.")
    assert "house.py" in task.hashes
    assert not Path("ran").exists()
    assert not Path("lamps/ran").exists()
    schema = json.loads(on.parameters)
    assert schema["required"] == ["room"]
    assert schema["properties"]["room"] == {"enum": ["hall", "attic"], "type": "string", "description": "where"}
    assert schema["properties"]["level"]["anyOf"] == [{"minimum": 0, "type": "integer"}, {"type": "null"}]
    assert json.loads(off.parameters)["properties"]["times"]["items"]["additionalProperties"] == {"type": "number"}


def test_a_file_is_read_as_it_would_be_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-0123456789")
    source = RUN + FILE
    Path("house.py").write_text(source)
    said = good("tools", "house.py:lamp_on,lamp_off", "-o", "written.json")
    assert said.splitlines()[0] == "lamp_on: Lights a lamp."
    found = tools_in_source(Path("house.py"), "lamp_on,lamp_off", source.encode())
    assert read_tools(json.loads(Path("written.json").read_text())) == read_tools(found)


@pytest.mark.parametrize(
    ("source", "names", "why"),
    [
        ("def lamp_on(room: str):\n    pass\n", "lamp_off", "house.py:1: no function lamp_off"),
        ("x = 1\ndef lamp_on(room):\n    pass\n", "lamp_on", "house.py:2: lamp_on: the parameter room has no type"),
        ("x = 1\n\ndef lamp_on(\n", "lamp_on", "house.py:3: "),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(source: str, names: str, why: str) -> None:
    with_functions(source, names)
    with pytest.raises(ProblemsError) as error:
        load_task(Path("lamps"))
    assert why in str(error.value)
    assert why in "\n".join(refused(2, "tools", f"lamps/house.py:{names}"))


@pytest.mark.parametrize(
    "argument",
    [
        "room: Place",
        "room: __import__('os').system('touch ran')",
        "room: list[open('ran', 'w')]",
        "room: Annotated[str, Field(description=open('ran', 'w'))]",
        "room: str = open('ran', 'w')",
        "room: 'open(1)'",
        "room: str[int]",
        "*rooms: str",
    ],
)
def test_what_only_running_the_file_can_tell_is_refused(argument: str) -> None:
    with_functions(f"def lamp_on({argument}):\n    pass\n", "lamp_on")
    with pytest.raises(ProblemsError, match=r"without running the file|without a name"):
        load_task(Path("lamps"))
    assert not Path("ran").exists()


def test_a_file_that_fails_when_it_is_run_is_refused_with_its_line() -> None:
    Path("house.py").write_text("x = 1\nraise KeyError('no')\n")
    assert "house.py:2: KeyError: 'no'" in "\n".join(refused(2, "tools", "house.py:lamp_on"))


@given(st.binary(max_size=60) | st.text(alphabet="def lamp_on(room: str=[],*)\n'\"|", max_size=60).map(str.encode))
def test_any_bytes_are_tools_or_a_reason(data: bytes) -> None:
    with suppress(ProblemsError):
        assert tools_in_source(Path("x.py"), "lamp_on", data)
