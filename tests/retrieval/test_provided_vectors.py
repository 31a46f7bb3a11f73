"""Vectors of a provider, by the real langchain-openai against a local server: counted, kept, and none paid twice."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import promptassay as pa
from agent.errors import BadResponse, InputError, RateLimited, ReleaseError, RunRefused
from agent.gateway.prices import price_of
from agent.models.langchain import MOST_TEXTS, EmbeddingModel, embedding_request, vectors_in
from agent.programs.prompt import PromptProgram
from agent.prompt.prompt_candidate import PromptCandidate
from agent.release.export import write_release
from agent.release.formats.export_format import FORMATS, Material
from agent.release.formats.proof import verify_exports
from agent.release.prompt_file import MESSAGES_FILE, PROMPT_FILE
from agent.release.runtime import load_prompt
from agent.retrieval.pick import Picks
from agent.retrieval.vectors import DENSE_RETRIEVERS
from agent.types import Example, Usage
from tests.cli.world import compatible, good, good_json, refused
from tests.release.formats.kinds import release_of
from tests.retrieval.test_dense import prompts
from tests.retrieval.test_planted import PROMPT, copier, rows
from tests.retrieval.test_same_picks import TASK, row
from tests.toys import FakeModel
from tests.wire import EMBEDDINGS_PATH, Fault, Seen, WireServer, word_vector

KEY = "secret-0123456789"
INPUTS = {"message": "a late parcel", "context": "door"}

pytest.importorskip("langchain_openai", reason="an extra: pip install 'promptassay[langchain]'")


def embeddings(server: WireServer) -> str:
    return f"openai-compatible:e@{server.url}"


def asked(server: WireServer) -> list[Seen]:
    return [seen for seen in server.requests if seen.path == EMBEDDINGS_PATH]


def run(server: WireServer, **more: Any) -> Any:
    words: dict[str, Any] = {"name": "planted", "max_calls": 500, "embeddings": embeddings(server), **more}
    model = compatible(server)
    return pa.optimize(rows(200, planted=True), target="label", prompt=PROMPT, model=model, proposer="none", **words)


# -- the model


async def test_a_call_has_the_vector_of_each_text_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    texts = ["a late parcel", "", "my card is lost " * 5_000, "half \ud800 a character"]
    with WireServer(copier) as server:
        model = EmbeddingModel(embeddings(server))
        reply = await model.complete(embedding_request(texts))
        await model.close()
    (seen,) = server.requests
    sent = seen.body["input"]
    assert sent[:2] == ["a late parcel", "(empty)"]
    assert (len(sent[2]), sent[3]) == (6_000, "half ? a character")
    assert [list(vector) for vector in vectors_in(reply)] == [word_vector(text) for text in sent]
    assert reply.usage.completion_tokens == 0
    assert reply.usage.prompt_tokens > 1_000
    assert KEY not in json.dumps(dict(seen.headers))  # an address that is not OpenAI's gets no key of it


def answer(vectors: Any) -> Fault:
    data = [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(vectors)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return Fault(body={"object": "list", "model": "e", "data": data, "usage": usage})


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (answer([[1.0, 2.0]]), BadResponse, "1 vectors of 2 numbers for 2 texts"),
        (answer([[1.0, 2.0], [1.0]]), BadResponse, "2 vectors of 1, 2 numbers"),
        (answer([[1.0, 2.0], [1.0, 1e300]]), BadResponse, "invalid vector"),
        (answer([[], []]), BadResponse, "2 vectors of 0 numbers"),
        (Fault(429, headers={"retry-after": "3"}), RateLimited, "429"),
        (Fault(401), RunRefused, "OPENAI_COMPATIBLE_API_KEY"),
    ],
)
async def test_what_is_no_answer_raises_as_of_other_models(fault: Fault, kind: type[Exception], words: str) -> None:
    with WireServer(lambda messages, body: fault) as server:
        model = EmbeddingModel(embeddings(server))
        with pytest.raises(kind, match=words):
            await model.complete(embedding_request(["one", "two"]))
        await model.close()


@pytest.mark.parametrize("name", ["glove", "openai", ":x", "openai:", "openai-compatible:x"])
def test_a_name_of_no_model_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="no such model; use wordllama, PROVIDER:NAME"):
        EmbeddingModel(name)


@pytest.mark.parametrize("name", ["openai:e", "openai-compatible:e"])
async def test_a_gateway_makes_the_vectors(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with WireServer(copier) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        model = EmbeddingModel(name)
        await model.complete(embedding_request(["a late parcel"]))
        await model.close()
    (seen,) = server.requests
    assert (seen.path, seen.body["model"]) == (EMBEDDINGS_PATH, "e")
    assert (KEY in json.dumps(dict(seen.headers))) is (name == "openai:e")
    assert model.endpoint == server.url
    assert model.hints == [f"{model.name}: rows go to {server.url} (OPENAI_BASE_URL)"]


async def test_openai_is_asked_at_its_own_address_with_its_own_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model = EmbeddingModel("openai:text-embedding-3-small")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(RunRefused, match="OPENAI_API_KEY is not set"):
        model.check_key()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    await model.probe()  # starts the client, and connects to nothing
    sdk = model._client.async_client._client
    await model.close()
    assert (str(sdk.base_url), sdk.api_key, sdk.max_retries) == ("https://api.openai.com/v1/", KEY, 0)
    price = price_of(model.name)
    assert price is not None
    assert price(Usage(1_000_000, 0)) > 0


async def test_a_provider_whose_package_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_cohere", None)
    with pytest.raises(RunRefused, match=r"langchain/cohere:embed: cannot start .* install that package"):
        await EmbeddingModel("cohere:embed").complete(embedding_request(["a"]))


# -- the search


def test_each_row_is_embedded_once_counted_priced_and_kept(here: Path) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows(200, planted=True)), "utf-8")
    with WireServer(copier) as server:
        words = ["run", "rows.jsonl", "--target", "label", "--prompt", PROMPT, "-m", compatible(server)]
        words += ["--embeddings", embeddings(server), "--max-calls", "500", "--price", "1,2", "--proposer", "none"]
        planned = good_json(*words, "--dry-run")["roles"]["embedding"]
        assert not server.requests
        result = good_json(*words, "-q")
        first = asked(server)
        sent = [text for seen in first for text in seen.body["input"]]
        assert len(sent) == len(set(sent)) > 150
        assert max(len(seen.body["input"]) for seen in first) == MOST_TEXTS
        good("transfer", result["run_id"], "--models", f"openai-compatible/y@{server.url}", "--top", "5", "-q")
        assert len(asked(server)) == len(first)
    assert planned["calls"] == result["calls"]["embedding"] == len(first)
    assert planned["usd"] > 0
    tried = good("history", result["run_id"], "--json")
    assert any(f"picked for each input by {name}" in tried for name in DENSE_RETRIEVERS)
    good("reproduce", result["run_id"])


def test_a_run_that_was_stopped_pays_no_vector_twice(here: Path) -> None:
    count = 0

    def stopping(messages: list[dict[str, Any]], body: dict[str, Any]) -> str | Fault:
        nonlocal count
        count += 1
        return Fault(401, body={"error": {"message": "no such key"}}) if 4 < count < 60 else copier(messages, body)

    with WireServer(stopping) as server:
        with pytest.raises(pa.AgentError) as caught:
            run(server, cache=False, max_concurrency=1)
        paid = [text for seen in asked(server)[:4] for text in seen.body["input"]]
        before = len(asked(server))
        count = 1000
        pa.resume(caught.value.run_id)
        later = [text for seen in asked(server)[before:] for text in seen.body["input"]]
    assert before >= 4
    assert len(paid) + len(later) == len({*paid, *later}) > 150


# -- the release


def provided(server_url: str = "http://127.0.0.1:9/v1") -> PromptProgram:
    space = replace(TASK.space, retrieval=True, embeddings=f"openai-compatible:e@{server_url}")
    program = PromptProgram(replace(TASK, space=space), FakeModel(lambda request: "billing"))
    program.pool.know({text: word_vector(text) for text in program.pool.texts(TASK.train)})
    return program


def test_search_and_release_send_the_same_messages_for_the_same_vector(tmp_path: Path) -> None:
    program = provided()
    examples = [replace(row(number), id=f"dev{number}") for number in range(100, 106)]
    program.pool.know({text: word_vector(text) for text in program.pool.texts(examples)})
    for number, prompt in enumerate(prompts(program)):
        assert program.check(prompt) == ""
        release = release_of(program, prompt)
        folder = write_release(release, tmp_path / str(number)).parent
        loaded = [load_prompt(folder / file) for file in (PROMPT_FILE, MESSAGES_FILE)]
        assert {one.version for one in loaded} == {release.version}
        for example in examples:
            wanted = [message.as_dict() for message in program.request(prompt, example).messages]
            vector = word_vector(loaded[0].embedded_text(**example.inputs))
            assert [one.render(vector=vector, **example.inputs) for one in loaded] == [wanted, wanted]
        exports = verify_exports(
            [FORMATS.get("md"), FORMATS.get("messages")], dict.fromkeys(("md", "messages"), Material(release))
        )
        assert all(any("vectors come from" in note for note in export.notes()) for export in exports)


def test_render_says_which_vector_it_needs_and_refuses_another(tmp_path: Path) -> None:
    program = provided()
    loaded = load_prompt(write_release(release_of(program, prompts(program)[0]), tmp_path))
    assert loaded.embeddings == program.task.space.embeddings
    for vector, words in (
        (None, r"by vectors of openai-compatible:e@.* pass the input's as vector=\.\.\."),
        ([1.0] * 31, "vector has 31 numbers; give the 32"),
        ([math.nan] * 32, "32 finite numbers"),
        ("late", "give the 32"),
    ):
        with pytest.raises(ReleaseError, match=words):
            loaded.render(vector=vector, **INPUTS)
    plain = PromptCandidate("few-shot", "turns", "Route.").having(picks=Picks("bm25", 4, pool=program.pool.id))
    other = load_prompt(write_release(release_of(program, plain), tmp_path / "plain"))
    assert other.embeddings == ""
    with pytest.raises(ReleaseError, match="picks no examples by vectors"):
        other.render(vector=[1.0] * 32, **INPUTS)


async def test_complete_asks_the_provider_for_the_vector_of_its_input(tmp_path: Path) -> None:
    with WireServer(copier) as server:
        program = provided(server.url)
        loaded = load_prompt(write_release(release_of(program, prompts(program)[0]), tmp_path))
        sent: list[Any] = []

        def answering(request: Any) -> str:
            sent.append([message.as_dict() for message in request.messages])
            return "billing"

        lm = FakeModel(answering)
        vector = word_vector(loaded.embedded_text(**INPUTS))
        assert (await loaded.acomplete(lm, **INPUTS)).fields == {"team": "billing"}
        assert len(asked(server)) == 1
        assert (await loaded.acomplete(lm, vector=vector, **INPUTS)).fields == {"team": "billing"}
        assert len(asked(server)) == 1  # it was given
    assert sent == [loaded.render(vector=vector, **INPUTS)] * 2


def test_apply_asks_in_batches_and_never_an_address_that_only_the_file_names(here: Path) -> None:
    shown: list[list[str]] = []

    def seeing(messages: list[dict[str, Any]], body: dict[str, Any]) -> str:
        if "messages" in body:
            shown.append([one["content"] for one, _ in pairwise(messages)])
        return "billing"

    examples = [row(number) for number in range(200, 240)]
    Path("new.jsonl").write_text("".join(json.dumps(dict(each.inputs)) + "\n" for each in examples), "utf-8")
    with WireServer(seeing) as server:
        program = provided(server.url)
        write_release(release_of(program, prompts(program)[0]), Path("made"))
        words = ["apply", "made/prompt.md", "new.jsonl", "-o", "out.jsonl", "-m", compatible(server), "-q"]
        said = refused(2, *words)
        assert "has never asked that address" in said[-1]
        assert not server.requests
        run(server, trials=1)
        before = len(asked(server))
        done = good_json(*words)
        batches = [len(seen.body["input"]) for seen in asked(server)[before:]]
    assert batches == [32, 8]
    assert done["calls"]["embedding"] == 2
    assert done["answered"] == 40
    program.pool.know({text: word_vector(text) for text in program.pool.texts(examples)})
    prompt = prompts(program)[0]
    wanted = {program.request(prompt, Example(f"x{n}", each.inputs, {})).messages for n, each in enumerate(examples)}
    got = {tuple(texts) for texts in shown[-40:]}
    assert got == {tuple(message.content for message in messages[:-1]) for messages in wanted}


def test_an_input_with_the_name_vector_is_that_input(tmp_path: Path) -> None:
    signature = replace(TASK.signature, inputs=(replace(TASK.signature.inputs[0], name="vector"),))
    train = tuple(replace(each, inputs={"vector": each.inputs["message"]}) for each in TASK.train)
    program = PromptProgram(replace(TASK, signature=signature, train=train), FakeModel(lambda request: "billing"))
    prompt = PromptCandidate("few-shot", "turns", "Route.").having(picks=Picks("bm25", 4, pool=program.pool.id))
    loaded = load_prompt(write_release(release_of(program, prompt), tmp_path))
    sent = program.request(prompt, Example("x", {"vector": "a late parcel"}, {})).messages
    assert loaded.render(vector="a late parcel") == [message.as_dict() for message in sent]
