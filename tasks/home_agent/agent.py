"""An assistant that reads the state of a home and changes it, with two tools and OpenAI's SDK."""

import json
from copy import deepcopy

from openai import AsyncOpenAI

ROUNDS = 4
VALUES = {
    "power": ("on", "off"),
    "position": ("open", "closed"),
    "lock": ("locked", "unlocked"),
    "mode": ("off", "home", "away"),
    "program": ("cotton", "wool", "quick", "eco"),
}
SETTINGS = (*VALUES, "target", "brightness", "volume", "speed", "level", "limit")


async def run(texts, row, model):
    """Carry out the request of a row; return the settings that changed."""
    before = json.loads(row["home"])
    home, rooms = deepcopy(before), ", ".join(before)
    messages = [
        {"role": "system", "content": texts["system"]},
        {"role": "user", "content": f"Rooms: {rooms}\n\n{row['request']}"},
    ]
    async with AsyncOpenAI(base_url=model.url, api_key=model.key) as client:
        for _ in range(ROUNDS):
            reply = await client.chat.completions.create(
                model=model.name, messages=messages, tools=tools(texts), temperature=0
            )
            message = reply.choices[0].message
            if not message.tool_calls:
                break
            messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
            for call in message.tool_calls:
                result = json.dumps(carry_out(home, call.function.name, call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    now, then = flat(home), flat(before)
    return {name: value for name, value in now.items() if value != then[name]}


def tools(texts):
    text = {"type": "string"}
    settings = {
        "room": text,
        "device": text,
        "setting": text | {"enum": list(SETTINGS)},
        "value": {"type": ["string", "number"]},
    }
    return [
        tool("read_state", texts["tool:read_state"], {"room": text}),
        tool("act", texts["tool:act"], settings),
    ]


def tool(name, description, arguments):
    parameters = {"type": "object", "properties": arguments, "required": list(arguments)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


def carry_out(home, name, arguments):
    """Call a tool; what is wrong with the call is its result, so that the model can correct it."""
    try:
        return {"read_state": read_state, "act": act}[name](home, **json.loads(arguments))
    except (KeyError, TypeError, ValueError) as error:
        return {"error": str(error)}


def read_state(home, room):
    if room not in home:
        raise ValueError(f"no room {room}; there are {', '.join(home)}")
    return home[room]


def act(home, room, device, setting, value):
    settings = read_state(home, room).get(device)
    if not isinstance(settings, dict):
        devices = [name for name, each in home[room].items() if isinstance(each, dict)]
        raise ValueError(f"no device {device} in the {room}; there are {', '.join(devices)}")
    if setting not in settings:
        raise ValueError(f"no setting {setting}; the {device} has {', '.join(settings)}")
    if setting not in VALUES:
        value = float(value)
    elif value not in VALUES[setting]:
        raise ValueError(f"{setting} is one of {', '.join(VALUES[setting])}")
    settings[setting] = value
    return {device: settings}


def flat(home):
    return {
        f"{room}.{device}.{setting}": value
        for room, devices in home.items()
        for device, settings in devices.items()
        if isinstance(settings, dict)
        for setting, value in settings.items()
    }
