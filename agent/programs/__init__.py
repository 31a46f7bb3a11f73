"""One kind of candidate a file."""

from typing import Literal

ArmName = Literal["classic", "lora", "lora+prompt", "full"]
ARMS = ("classic",)
"""What a run scores besides prompts and can ship when asked for."""
TUNED_ARMS = ("lora", "lora+prompt", "full")
"""What a comparison (`optimize customize`) trains and releases."""
