"""`ray/local/NAME?engines=N`: the replies and keys of the local model, from actors of which some are killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.cluster import join_cluster, leave_cluster
from agent.errors import InputError, TransportUnknown
from agent.ledger.store import Ledger
from agent.models.model_registry import create_model, file_digest, require_files
from agent.training.base_model import load_base
from agent.training.parameters import Lora, lora_size
from agent.types import LM, Completion, Message, Request, call_key
from tests.cli.world import good_json
from tests.gateway.doors import gateway, states
from tests.models.engine_actors import engine_pids
from tests.toys import until
from tests.training.tiny import speaking
from tests.warm import start

needs_ray = pytest.mark.extra("ray")
TASKS = Path(__file__).resolve().parents[2] / "tasks"


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A cluster of this machine that the pools of this file find; a SIGTERM does what it did before."""
    before = signal.getsignal(signal.SIGTERM)
    ray = join_cluster("local", "a test")
    try:
        assert signal.getsignal(signal.SIGTERM) is before
        yield ray
    finally:
        leave_cluster(ray)
    assert not ray.is_initialized()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return speaking(tmp_path / "tiny.gguf")


def question(number: int) -> Request:
    system = f"You are number {number % 3}. Answer in as few words as you can."
    return Request((Message("system", system), Message("user", f"{number}: what now?")), 6, logprobs=2)


async def replies(model: LM, *requests: Request) -> list[Completion]:
    try:
        return list(await asyncio.gather(*[model.complete(request) for request in requests]))
    finally:
        await model.close()


def uncached(found: Iterable[Completion]) -> list[Completion]:
    """The replies without what a prefix cache had of their prompts, which depends on their order."""
    return [replace(each, usage=replace(each.usage, cached_prompt_tokens=0)) for each in found]


@pytest.mark.parametrize(
    "rest", ["local/smollm2-135m", "local/smollm2-135m?engines=0", "openai/x?engines=2", "local/?engines=2", "x"]
)
def test_a_name_that_is_none_is_refused_with_its_form(rest: str) -> None:
    with pytest.raises(InputError, match=r"name it as ray/local/NAME\?engines=N"):
        create_model(f"ray/{rest}")


def test_files_behind_a_pool_are_those_of_its_model(path: Path) -> None:
    assert file_digest(f"ray/local/{path}?engines=2") == file_digest(f"local/{path}") != ""
    with pytest.raises(InputError, match=r"none\.gguf: no such model file"):
        require_files([f"ray/local/{path.parent}/none.gguf?engines=2"])


@needs_ray
async def test_a_pool_is_the_local_model_in_all_but_place(ray: Any, path: Path) -> None:
    pool, local = create_model(f"ray/local/{path}?engines=2"), create_model(f"local/{path}")
    requests = [question(number) for number in range(12)]
    assert [call_key(pool, each) for each in requests] == [call_key(local, each) for each in requests]
    assert pool.concurrency == 128
    assert pool.count_tokens("what now?") == local.count_tokens("what now?")
    found = await replies(pool, *requests)
    assert uncached(found) == uncached(await replies(local, *requests))
    assert len({reply.text for reply in found}) > 1
    await until(lambda: engine_pids() == [])  # an actor that was told to end takes a moment


@needs_ray
async def test_an_adapter_answers_beside_its_base(ray: Any, path: Path, tmp_path: Path) -> None:
    base = load_base(path)
    values = np.random.default_rng(1).normal(0, 0.5, lora_size(base.architecture, 3)).astype(np.float32)
    adapter, _ = Lora(base.architecture, 3, 2.0, values).write(tmp_path)
    names = (f"{path}+{adapter}", f"{path}")
    pools = [create_model(f"ray/local/{name}?engines=1") for name in names]
    requests = [question(number) for number in range(4)]
    found = await asyncio.gather(*[replies(pool, *requests) for pool in pools])
    apart = [await replies(create_model(f"local/{name}"), *requests) for name in names]
    assert [uncached(each) for each in found] == [uncached(each) for each in apart]
    assert uncached(found[0]) != uncached(found[1])


@needs_ray
async def test_an_actor_that_dies_leaves_one_call_unknown_and_another_takes_its_place(
    ray: Any, path: Path, ledger: Ledger, capfd: pytest.CaptureFixture[str]
) -> None:
    pool, door = create_model(f"ray/local/{path}?engines=1"), gateway(ledger)
    try:
        found = [await door.complete("model", pool, question(0))]
        (first,) = engine_pids()
        assert os.getpriority(os.PRIO_PROCESS, first) == os.getpriority(os.PRIO_PROCESS, 0)
        os.kill(first, signal.SIGSTOP)  # over a call for certain
        calls = [asyncio.create_task(door.complete("model", pool, question(number))) for number in range(1, 4)]
        await until(lambda: states(ledger).total() == 4)
        await asyncio.sleep(0.5)
        os.kill(first, signal.SIGKILL)
        found += await asyncio.gather(*calls)
        assert states(ledger) == {"ok": 4, "unknown": 1}
        assert capfd.readouterr() == ("", ""), "the output is ours"
        assert engine_pids() not in ([], [first])
    finally:
        await pool.close()
    assert uncached(found) == uncached(await replies(create_model(f"local/{path}"), *map(question, range(4))))


@needs_ray
def test_a_run_on_a_pool_is_bought_for_the_local_model_too(path: Path, tmp_path: Path) -> None:
    """By the command, with its own cluster."""
    command = ["run", str(TASKS / "word_problems"), "-q", "--json", "--max-calls", "120", "-n", "1"]
    command += ["--proposer", "none", "--db", str(tmp_path / "ledger.db")]
    process = start(*command, "-m", f"ray/local/{path}?engines=1")
    out, err = process.communicate(240)
    assert process.returncode == 0, err
    pool, local = json.loads(out), good_json(*command, "-m", f"local/{path}")
    assert pool["model"] == local["model"] == f"local/{path}"
    assert (local["calls"]["model"], local["calls"]["cached"]) == (0, pool["calls"]["model"])
    assert local["baseline"] == pool["baseline"]


@needs_ray
async def test_a_pool_closes_though_an_actor_hangs(ray: Any, path: Path) -> None:
    pool = create_model(f"ray/local/{path}?engines=1")
    await pool.complete(question(0))
    (actor,) = engine_pids()
    os.kill(actor, signal.SIGSTOP)
    call = asyncio.create_task(pool.complete(question(1)))
    await asyncio.sleep(0.5)
    async with asyncio.timeout(60):
        await pool.close()
        with pytest.raises(TransportUnknown):
            await call
    with contextlib.suppress(ProcessLookupError):
        os.kill(actor, signal.SIGKILL)


@needs_ray
async def test_what_no_engine_can_do_is_said_before_or_at_the_first_call(ray: Any, path: Path) -> None:
    with pytest.raises(InputError, match="an engine takes one CPU, and the cluster has"):
        await replies(create_model(f"ray/local/{path}?engines=999"), question(0))
    damaged = path.with_name("damaged.gguf")
    damaged.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="the engine cannot load this file"):
        await replies(create_model(f"ray/local/{damaged}?engines=1"), question(0))
    assert ray.is_initialized()
