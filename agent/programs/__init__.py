"""One kind of candidate a file."""

ARMS = ("classic",)
"""What a run scores besides prompts and can ship when asked for."""
TUNED_ARMS = ("lora", "lora+prompt", "full")
"""What a comparison (`optimize customize`) trains and releases."""
