"""A prompt with its adapter: for llama.cpp's server, and in the form of peft for transformers and vLLM."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from agent.errors import InputError, ReleaseError
from agent.extras import command
from agent.models.adapters import is_soft_prompt
from agent.models.gguf import read_gguf
from agent.models.weights import CATALOG, weights_path
from agent.prompt.parts.adapter import ADAPTER_FILE, ReleasedAdapter, require_base
from agent.release.export import export_markdown
from agent.release.formats.export_format import Content, Material, Opened, export_format, installed_version
from agent.release.formats.native import load_file
from agent.release.runtime import PROMPT_FILE, PromptRelease
from agent.safe_file import disk_errors
from agent.training.base_model import Architecture, read_architecture
from agent.training.hf_files import peft_form, read_peft_form
from agent.training.parameters import Lora, read_lora

_load = load_file(PROMPT_FILE)


def _filled(template: str, release: PromptRelease, **more: Any) -> str:
    adapter = release.part(ReleasedAdapter)
    assert adapter is not None
    return template.format(
        prompt=PROMPT_FILE,
        adapter=ADAPTER_FILE,
        model=json.dumps(release.model),
        base=adapter.base,
        inputs=", ".join(f"{name}=..." for name in release.inputs),
        parameters={key: value for key, value in release.parameters.items() if key in ("max_tokens", "temperature")},
        **more,
    )


def _adapter_of(target: str, release: PromptRelease) -> ReleasedAdapter:
    adapter = release.part(ReleasedAdapter)
    if adapter is None:
        raise ReleaseError(
            f"{target}: {release.name!r} has no adapter; export it as md, and serve {release.model} as it is"
        )
    with disk_errors(f"{adapter.path}: cannot be read"):
        if is_soft_prompt(read_gguf(adapter.path)):
            raise ReleaseError(
                f"{target}: {release.name!r} has a soft prompt, which it cannot load; answer with "
                "load_prompt(...).complete"
            )
    return adapter


# -- llama.cpp's server ------------------------------------------------------------------------------------------------

README = "README.md"
_SERVER_TEXT = """\
# A prompt with its adapter

`{prompt}` is the prompt, `{adapter}` its LoRA adapter in GGUF. Both need these weights:

    model    {model}
    SHA-256  {base}

Start llama.cpp's server in this folder, with the path of the weights as BASE:

    echo "{base}  $BASE" | sha256sum --check
    llama-server --model "$BASE" --lora {adapter} --flash-attn off --ctx-size 8192 --port 8080

Then ask it. `load_prompt` checks every byte of both files:

    from promptassay import load_prompt
    prompt = load_prompt({prompt!r})
    body = {{"messages": prompt.render({inputs}), "cache_prompt": False, **{parameters}}}
    # POST body to http://127.0.0.1:8080/v1/chat/completions; then
    # prompt.parse(reply["choices"][0]["message"]["content"]).fields

`cache_prompt` is off, as when the prompt was scored: a cached prefix is rounded differently under an adapter.
Without a server, `load_prompt({prompt!r}).complete({inputs})` answers in the process itself.
"""


@export_format(
    "llama-server",
    about="prompt.md, adapter.gguf and a README: for llama.cpp's server; load_prompt reads the prompt",
    load=_load,
    carries=("adapter", "calibration", "picks"),
)
def server_files(material: Material) -> dict[str, Content]:
    release = material.release
    adapter = _adapter_of("llama-server", release).path.read_bytes()
    return {PROMPT_FILE: export_markdown(release), ADAPTER_FILE: adapter, README: _filled(_SERVER_TEXT, release)}


# -- peft --------------------------------------------------------------------------------------------------------------

PEFT_README = "PEFT.md"  # llama-server writes a README.md, and both may go into one folder
VLLM_RANKS = (8, 16, 32, 64, 128, 256)
"""The values of vLLM's --max-lora-rank."""
_PEFT_TEXT = """\
# A prompt with its adapter, in the form of peft

`adapter_model.safetensors` and `adapter_config.json` are a LoRA adapter of rank {rank}, `{prompt}` is its prompt.
`{adapter}` is the same adapter for llama.cpp; `load_prompt` reads it with the prompt.

It was trained on the weights {model}, from a file with SHA-256 {base}.
Below, {hub} is the model on Hugging Face, or a folder of it, that this file was made from. If the file's weights are
rounded, replies of the original model can differ from those that were scored.

vLLM, in this folder:

    vllm serve {hub} --enable-lora --max-lora-rank {most} --lora-modules {name}=.

Requests then name {name} as their model.

transformers:

    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({hub!r}), ".")

`load_prompt` makes the messages of a request and checks every byte of the prompt and of `{adapter}`:

    from promptassay import load_prompt
    prompt = load_prompt({prompt!r})
    messages = prompt.render({inputs})  # ask with {parameters}
    # prompt.parse(reply).fields
"""


def _load_peft(folder: Path, release: PromptRelease) -> Opened:
    opened = _load(folder, release)
    _, lora, architecture = _weights_of(release)
    try:
        found = read_peft_form(folder, architecture)
    except InputError as error:
        raise ReleaseError(str(error)) from error
    if (found.rank, found.scale) != (lora.rank, lora.scale) or found.flat.tobytes() != lora.flat.tobytes():
        raise ReleaseError(f"{folder}: the adapter that was read back is not the one that was released")
    return opened


def _weights_of(release: PromptRelease) -> tuple[ReleasedAdapter, Lora, Architecture]:
    try:
        adapter = _adapter_of("peft", release)
        base = weights_path(release.model.partition("/")[2])
        if not base.is_file():
            raise ReleaseError(
                f"peft: {base}: the adapter's base weights are missing; fetch them with `optimize models fetch`, or "
                "restore the file"
            )
        require_base(release)
        return adapter, read_lora(adapter.path, base), read_architecture(read_gguf(base))
    except InputError as error:
        raise ReleaseError(f"peft: {error}") from error


@export_format(
    "peft",
    about="the adapter for transformers and vLLM (safetensors), with prompt.md and how to serve both",
    load=_load_peft,
    library="safetensors",
    install=command("exports"),
    carries=("adapter", "calibration", "picks"),
)
def peft_files(material: Material) -> dict[str, Content]:
    release = material.release
    adapter, lora, architecture = _weights_of(release)
    if not installed_version("safetensors"):
        raise ReleaseError(f"peft: needs safetensors, which is not installed; {command('exports')}")
    hub = {f"local/{weights.name}": weights.hub for weights in CATALOG}.get(release.model)
    most = next((rank for rank in VLLM_RANKS if rank >= lora.rank), lora.rank)
    text = _filled(_PEFT_TEXT, release, rank=lora.rank, most=most, hub=hub or "BASE", name=shlex.quote(release.name))
    kept = adapter.path.read_bytes()
    made: dict[str, Content] = {PROMPT_FILE: export_markdown(release), ADAPTER_FILE: kept, PEFT_README: text}
    return made | peft_form(lora, architecture, hub)
