"""An agent on the published APIs of BFCL's multi-turn rows: `agents.py` copies it as the agent.py of a task.

The APIs are read from the folder that the variable BFCL_MULTI_TURN names, and are never copied.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from openai import AsyncOpenAI

ROUNDS = 6
MODULES = {
    "GorillaFileSystem": "gorilla_file_system",
    "VehicleControlAPI": "vehicle_control",
    "TradingBot": "trading_bot",
}
TYPES = {"dict": "object", "float": "number", "tuple": "array"}
LONG_CONTEXT = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code.long_context"


async def run(texts: dict[str, str], row: dict[str, str], model: Any) -> dict[str, Any]:
    """Return the API's state after the request, and the results of all calls."""
    given = json.loads(row["api"])
    api, results = started(given["class"], given["config"]), []
    messages: list[Any] = [
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": row["request"]},
    ]
    async with AsyncOpenAI(base_url=model.url, api_key=model.key) as client:
        for _ in range(ROUNDS):
            reply = await client.chat.completions.create(
                model=model.name, messages=messages, tools=tools_of(given["class"], given["tools"]), temperature=0
            )
            message: Any = reply.choices[0].message
            if not message.tool_calls:
                break
            messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
            for call in message.tool_calls:
                results.append(called(api, call.function.name, call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": results[-1]})
    return {"state": state_of(api), "results": results}


def data() -> Path:
    return Path(os.environ["BFCL_MULTI_TURN"])


def started(name: str, config: dict[str, Any]) -> Any:
    """Return an API in the state of a row."""
    folder = str(data() / "apis")
    if folder not in sys.path:
        sys.path.append(folder)
    parts = LONG_CONTEXT.split(".")
    for end in range(1, len(parts)):
        sys.modules.setdefault(".".join(parts[:end]), ModuleType(parts[end - 1]))
    sys.modules.setdefault(LONG_CONTEXT, importlib.import_module("long_context"))
    api = getattr(importlib.import_module(MODULES[name]), name)()
    api._load_scenario(json.loads(json.dumps(config)), long_context=False)
    return api


def tools_of(name: str, names: list[str]) -> list[dict[str, Any]]:
    lines = (data() / "func_doc" / f"{MODULES[name]}.json").read_text("utf-8").splitlines()
    known = [json.loads(line) for line in lines if line.strip()]
    return [
        {
            "type": "function",
            "function": {
                "name": each["name"],
                "description": each["description"].rpartition("Tool description: ")[2],
                "parameters": as_schema(each["parameters"]),
            },
        }
        for each in known
        if each["name"] in names
    ]


def as_schema(value: Any) -> Any:
    """Return a schema with the names of JSON's types; `any` says nothing."""
    if isinstance(value, list):
        return [as_schema(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: as_schema(each) for key, each in value.items() if not (key == "type" and each == "any")}
    if isinstance(found.get("type"), str):
        found["type"] = TYPES.get(found["type"], found["type"])
    return found


def called(api: Any, name: str, arguments: str) -> str:
    """Call a function of the API; errors are results."""
    try:
        return json.dumps(getattr(api, name)(**json.loads(arguments)), default=str)
    except Exception as error:
        return json.dumps({"error": str(error)})


def state_of(value: Any) -> Any:
    """Return the public attributes of an API as JSON."""
    if isinstance(value, dict):
        return {str(key): state_of(each) for key, each in sorted(value.items(), key=lambda item: str(item[0]))}
    if isinstance(value, list | tuple | set):
        return [state_of(each) for each in value]
    if hasattr(value, "__dict__"):
        public = {key: each for key, each in vars(value).items() if not key.startswith("_") and key != "parent"}
        return {"is": type(value).__name__, **state_of(public)}
    return value if isinstance(value, str | int | float | bool | None) else str(value)
