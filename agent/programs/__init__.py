"""Kinds of programs, one per file."""

from typing import Literal

ArmName = Literal["classic", "lora", "lora+prompt", "full"]
ARMS = ("classic",)  # arms other than prompts that a run scores and can ship on request
TUNED_ARMS = ("lora", "lora+prompt", "full")  # arms that a comparison (`optimize customize`) trains and releases
