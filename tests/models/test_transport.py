"""Proxies and certificates come from the environment, as with the SDKs' own clients."""

from __future__ import annotations

import base64
import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import RunRefused, Transient
from agent.models.anthropic import AnthropicModel
from agent.models.hosted import HostedModel
from agent.models.openai import OpenAIModel
from agent.types import Completion, Message, Request
from tests.wire import WireServer, ok

KEY = "secret-0123456789-abcdef"
REQUEST = Request(messages=(Message("user", "Which team?"),), max_tokens=16, timeout=10.0)


def openai(root: str) -> HostedModel:
    return OpenAIModel("m", "m", base_url=f"{root}/v1", api_key=KEY)


def anthropic(root: str) -> HostedModel:
    return AnthropicModel("m", "m", base_url=root, api_key=KEY)


both = pytest.mark.parametrize("make", [openai, anthropic])
Make = Callable[[str], HostedModel]


async def ask(model: HostedModel) -> Completion:
    try:
        return await model.complete(REQUEST)
    finally:
        await model.close()


# -- proxies -----------------------------------------------------------------------------------------------------------


@both
async def test_a_proxy_gets_the_request_and_its_own_login(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with WireServer(ok) as proxy:
        monkeypatch.setenv("http_proxy", proxy.root.replace("://", "://user:pass%40word@"))
        with pytest.raises(RunRefused, match="HTTP 404") as caught:  # the test's server is no real proxy
            await ask(make("http://127.0.0.1:9"))
    assert proxy.requests[0].path.startswith("http://127.0.0.1:9/v1/")
    login = base64.b64encode(b"user:pass@word").decode()
    assert proxy.requests[0].headers["proxy-authorization"] == f"Basic {login}"
    assert "pass" not in str(caught.value)


@both
async def test_a_proxy_is_passed_by_where_the_environment_says_so(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    with WireServer(ok) as server, WireServer(ok) as proxy:
        monkeypatch.setenv("http_proxy", proxy.root)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert (await ask(make(server.root))).text == "ok"
        assert proxy.requests == []


@both
async def test_a_proxy_that_makes_no_tunnel_means_that_nothing_was_sent(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WireServer(ok) as proxy:
        monkeypatch.setenv("https_proxy", proxy.root)
        with pytest.raises(Transient, match="cannot connect"):
            await ask(make("https://127.0.0.1:9"))
    assert [seen.method for seen in proxy.requests] == ["CONNECT"]


# -- certificates ------------------------------------------------------------------------------------------------------

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of this machine's own, and a server's context with it."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=toy"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(paths[0]), "-keyout", str(paths[1])]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*paths)
    return paths[0], context


@needs_openssl
@both
@pytest.mark.parametrize("over_httpx2", [False, True])
async def test_a_certificate_is_trusted_where_ssl_cert_file_says_so(
    make: Make, over_httpx2: bool, certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate
    if over_httpx2:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with WireServer(ok, tls=context) as server:
        with pytest.raises(RunRefused, match="SSL_CERT_FILE"):
            await ask(make(server.root))
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(path))
        assert (await ask(make(server.root))).text == "ok"
