"""A prompt with its adapter for llama.cpp's own server: the prompt, the adapter and how to start the server."""

from __future__ import annotations

import json
from pathlib import Path

from agent.errors import ReleaseError
from agent.models.adapter_file import is_soft_prompt
from agent.models.gguf import read_gguf
from agent.release.export import export_markdown, verify_file
from agent.release.formats.export_format import Content, Material, Render, Settings, export_format, settings_of
from agent.release.released_adapter import ADAPTER_FILE
from agent.release.runtime import PROMPT_FILE, PromptRelease, load_prompt

README = "README.md"
_TEXT = """\
# A prompt with its adapter

`{prompt}` is the prompt, `{adapter}` a LoRA adapter in GGUF that it is answered with. Both go with these weights:

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

`cache_prompt` is off as it was when the prompt was scored: a cached prefix is rounded differently under an adapter.
Without a server, `load_prompt({prompt!r}).complete({inputs})` answers in the process itself.
"""


def _load(folder: Path, release: PromptRelease) -> Render:
    verify_file(folder / PROMPT_FILE, release)
    prompt = load_prompt(folder / PROMPT_FILE)
    return lambda values: prompt.render(**values)


def _settings(folder: Path, release: PromptRelease) -> Settings:
    return settings_of(load_prompt(folder / PROMPT_FILE).release)


@export_format(
    "llama-server",
    about="prompt.md, adapter.gguf and a README: for llama.cpp's server; load_prompt reads the prompt",
    load=_load,
    settings=_settings,
    carries_weights=True,
    carries_picks=True,
    carries_adapter=True,
)
def files(material: Material) -> dict[str, Content]:
    release = material.release
    if release.adapter is None:
        raise ReleaseError(
            f"llama-server: {release.name!r} has no adapter; export it as md, and serve {release.model} as it is"
        )
    try:
        adapter = release.adapter.path.read_bytes()
    except OSError as error:
        raise ReleaseError(f"{release.adapter.path}: cannot be read ({error.strerror or error})") from error
    if is_soft_prompt(read_gguf(release.adapter.path)):
        raise ReleaseError(
            f"llama-server: {release.name!r} has a soft prompt, whose tokens llama.cpp's server does not put before a "
            "prompt; answer with load_prompt(...).complete, which does"
        )
    text = _TEXT.format(
        prompt=PROMPT_FILE,
        adapter=ADAPTER_FILE,
        model=json.dumps(release.model),
        base=release.adapter.base,
        inputs=", ".join(f"{name}=..." for name in release.inputs),
        parameters={name: value for name, value in release.parameters.items() if name in ("max_tokens", "temperature")},
    )
    return {PROMPT_FILE: export_markdown(release), ADAPTER_FILE: adapter, README: text}
