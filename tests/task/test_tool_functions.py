"""Python functions as tools: types become the schema, the docstring the descriptions, and nothing is called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agent.errors import InputError, ProblemsError
from agent.run.tool_sources import tools_in_functions
from agent.task.load import load_task
from agent.task.tool_functions import docstring_parts, tool_of_function
from promptassay import write_tools
from tests.cli.test_tools import TASK, write_task
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
    light, nothing, old = tools_in_functions([set_light, stop, old_style])
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
        (any_number, "is given by no name"),
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
        tools_in_functions([any_number, set_light, untyped])
    assert len(str(error.value).splitlines()) == 2


@given(st.text())
def test_any_docstring_is_read(text: str) -> None:
    about, arguments = docstring_parts(text)
    assert "\n" not in about
    assert all(name.isidentifier() or name[0].isdigit() for name in arguments)


FILE = '''\
import os
from typing import Literal

assert "PATH" in os.environ and not [name for name in os.environ if "KEY" in name]
print("said while it is loaded")


def lamp_on(room: Literal["hall", "attic"]) -> None:
    """Lights a lamp."""
    raise SystemExit(1)


def lamp_off(room: str) -> None:
    """Puts a lamp out."""
'''


def test_functions_of_a_file_beside_a_task_are_its_tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret-0123456789")
    write_task()
    Path("lamps/house.py").write_text(FILE)
    Path("lamps/task.toml").write_text(TASK.replace('"tools.json"', '"house.py:lamp_on, lamp_off"'))
    for split in ("train", "dev", "test"):
        path = Path(f"lamps/{split}.jsonl")
        path.write_text(path.read_text().replace("kitchen", "hall").replace("lamp_on", "lamp_off"))
    task = load_task(Path("lamps"))
    assert [(tool.name, tool.description) for tool in task.tools] == [
        ("lamp_on", "Lights a lamp."),
        ("lamp_off", "Puts a lamp out."),
    ]
    assert {"house.py", "tools"} <= set(task.hashes)
    assert load_task(Path("lamps")) == task
    said = good("tools", "lamps/house.py:lamp_on,lamp_off", "-o", "written.json")
    assert said.splitlines()[0] == "lamp_on: Lights a lamp."
    assert write_tools([*task.tools, set_light], "more.json") == Path("more.json")
    assert [each["function"]["name"] for each in json.loads(Path("more.json").read_text())] == [
        "lamp_on",
        "lamp_off",
        "set_light",
    ]


@pytest.mark.parametrize(
    ("source", "names", "why"),
    [
        (
            "def lamp_on(room: str):\n    pass\n",
            "lamp_off",
            "house.py:1: no function lamp_off; write def lamp_off(...)",
        ),
        ("x = 1\ndef lamp_on(room):\n    pass\n", "lamp_on", "house.py:2: lamp_on: the parameter room has no type"),
        ("x = 1\nraise KeyError('no')\n", "lamp_on", "house.py:2: KeyError: 'no'"),
        ("x = 1\n\ndef lamp_on(\n", "lamp_on", "house.py:3: SyntaxError"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(source: str, names: str, why: str) -> None:
    write_task()
    Path("lamps/house.py").write_text(source)
    Path("lamps/task.toml").write_text(TASK.replace('"tools.json"', f'"house.py:{names}"'))
    with pytest.raises(ProblemsError) as error:
        load_task(Path("lamps"))
    assert why in str(error.value)
    assert why.split(":", 1)[1] in "\n".join(refused(2, "tools", f"lamps/house.py:{names}"))
