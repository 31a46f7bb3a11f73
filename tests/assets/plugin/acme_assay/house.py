"""The models `house/NAME`: what our own server serves, which the environment variable HOUSE_URL names."""

from __future__ import annotations

import os

from agent.errors import InputError
from agent.models.model_registry import model
from agent.models.openai import OpenAIModel
from agent.types import LM


@model("house", form="house/NAME", about="our own server; HOUSE_URL says where", leads_elsewhere=False)
def house(name: str, rest: str) -> LM:
    if not (url := os.environ.get("HOUSE_URL")):
        raise InputError(f"{name!r}: HOUSE_URL is not set; set it to the address of the server")
    return OpenAIModel(name, rest, base_url=url)
