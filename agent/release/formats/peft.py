"""A prompt with its adapter in the form of the package peft: for transformers and vLLM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from agent.errors import InputError, ReleaseError
from agent.extras import command
from agent.models.adapter_file import is_soft_prompt
from agent.models.gguf import read_gguf
from agent.models.weights import CATALOG, weights_path
from agent.release.adapted_model import require_base
from agent.release.export import export_markdown, verify_file
from agent.release.formats.export_format import (
    Content,
    Material,
    Render,
    Settings,
    export_format,
    installed_version,
    settings_of,
)
from agent.release.prompt_file import PromptRelease
from agent.release.released_adapter import ADAPTER_FILE
from agent.release.runtime import PROMPT_FILE, load_prompt
from agent.tuning.base_model import Architecture, read_architecture
from agent.tuning.lora import Lora, read_lora
from agent.tuning.peft.form import peft_form, read_peft_form

README = "PEFT.md"  # llama-server writes a README.md, and both may go into one folder
VLLM_RANKS = (8, 16, 32, 64, 128, 256)
"""What vLLM takes as the largest rank."""
_TEXT = """\
# A prompt with its adapter, in the form of peft

`adapter_model.safetensors` and `adapter_config.json` are a LoRA adapter of rank {rank}, `{prompt}` the prompt that it
is answered with. `{adapter}` is the same adapter for llama.cpp; `load_prompt` reads it with the prompt.

It was trained beside a file of the weights {model} whose SHA-256 is {base}.
In the lines below {hub} is the model on Hugging Face, or a folder of it, that this file was made from. Where the file's
weights are rounded, replies of the model itself can differ from those that were scored.

vLLM, in this folder:

    vllm serve {hub} --enable-lora --max-lora-rank {most} --lora-modules {name}=.

Requests then name {name} as their model.

transformers:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({hub!r}), ".")

The messages of a request come from `load_prompt`, which checks every byte of the prompt and of `{adapter}`:

    from promptassay import load_prompt
    prompt = load_prompt({prompt!r})
    messages = prompt.render({inputs})  # ask with {parameters}
    # prompt.parse(reply).fields
"""


def _load(folder: Path, release: PromptRelease) -> Render:
    """Reads all files back: the prompt as of any release, and the adapter's matrices, which have to be bit-equal."""
    verify_file(folder / PROMPT_FILE, release)
    lora, architecture = _adapter(release)
    try:
        found = read_peft_form(folder, architecture)
    except InputError as error:
        raise ReleaseError(str(error)) from error
    if (found.rank, found.scale) != (lora.rank, lora.scale) or found.flat.tobytes() != lora.flat.tobytes():
        raise ReleaseError(f"{folder}: the adapter that was read back is not the one that was released")
    prompt = load_prompt(folder / PROMPT_FILE)
    return lambda values: prompt.render(**values)


def _settings(folder: Path, release: PromptRelease) -> Settings:
    return settings_of(load_prompt(folder / PROMPT_FILE).release)


def _adapter(release: PromptRelease) -> tuple[Lora, Architecture]:
    """The matrices of a release's adapter, and the sizes of its base. Raises ReleaseError where either is not here."""
    if release.adapter is None:
        raise ReleaseError(
            f"peft: {release.name!r} has no adapter; export it as md, and serve {release.model} as it is"
        )
    base = weights_path(release.model.partition("/")[2])
    if not base.is_file():
        raise ReleaseError(
            f"peft: {base}: the weights that the adapter goes with are not here, and the order of its rows depends on "
            "them; fetch them with `optimize models fetch`, or put the file back"
        )
    require_base(release)
    try:
        file = read_gguf(release.adapter.path)
        if is_soft_prompt(file):
            raise ReleaseError(
                f"peft: {release.name!r} has a soft prompt, whose tokens stand inside the prompt; peft has no form "
                "for that; answer with load_prompt(...).complete"
            )
        return read_lora(release.adapter.path, base), read_architecture(read_gguf(base))
    except InputError as error:
        raise ReleaseError(f"peft: {error}") from error


@export_format(
    "peft",
    about="the adapter for transformers and vLLM (safetensors), with prompt.md and how to serve both",
    load=_load,
    library="safetensors",
    install=command("exports"),
    settings=_settings,
    carries_weights=True,
    carries_picks=True,
    carries_adapter=True,
)
def files(material: Material) -> dict[str, Content]:
    release = material.release
    lora, architecture = _adapter(release)
    assert release.adapter is not None
    if not installed_version("safetensors"):
        raise ReleaseError(f"peft: needs safetensors, which is not installed; {command('exports')}")
    known = {f"local/{weights.name}": weights.hub for weights in CATALOG}
    hub = known.get(release.model)
    text = _TEXT.format(
        rank=lora.rank,
        most=next((rank for rank in VLLM_RANKS if rank >= lora.rank), lora.rank),
        prompt=PROMPT_FILE,
        adapter=ADAPTER_FILE,
        model=json.dumps(release.model),
        base=release.adapter.base,
        hub=hub or "BASE",
        name=shlex.quote(release.name),
        inputs=", ".join(f"{name}=..." for name in release.inputs),
        parameters={name: value for name, value in release.parameters.items() if name in ("max_tokens", "temperature")},
    )
    made: dict[str, Content] = {PROMPT_FILE: export_markdown(release)}
    return made | {ADAPTER_FILE: release.adapter.path.read_bytes(), README: text} | peft_form(lora, architecture, hub)
