"""The kind `agent`: a user's own agent, in any framework or language, whose texts are optimized.

The agent runs as its author wrote it, once for each row (a rollout): it gets the texts of the running candidate, the
row's inputs, and the address of a model. Behind the address is our endpoint, so every call that the agent makes goes
through the gateway: within the caps, recorded, and answered from the ledger when a run is resumed.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.errors import ReleaseError, TransportUnknown
from agent.gateway.endpoint import Endpoint
from agent.programs.agent_call import AgentFault, AgentModel, Rollout, require_agent
from agent.programs.agent_hosts import AgentHost, Commands, InProcess, PythonProcesses
from agent.programs.kinds import ReleaseSpec, UserKind, program, read_fields
from agent.programs.rollout import RolloutCalls, RolloutTrace
from agent.prompt.named_texts import TextsCandidate, as_texts
from agent.prompt.reply_parser import parse_reply
from agent.release.texts import TEXTS_FILE, TextsRelease, read_texts
from agent.tracking.spans import calls_of
from agent.types import LM, Call, Candidate, Example, Prediction, Request, Signature, Task

_HOLE = re.compile(r"\{\{?\s*[A-Za-z_]\w*\s*\}?\}")


@program("agent", about="Your own agent, in any framework or language: its texts.", takes="an agent with texts")
class AgentProgram(UserKind):
    """Runs the agent of a task on rows, with the texts of a candidate."""

    kind = "agent"
    what, file = "an agent", TEXTS_FILE
    calls, drops_idle_parts, varies, reply_tokens = 1, True, True, 1000

    def __init__(self, task: Task, lm: LM, own: object = None, made: object = None) -> None:
        assert task.rollouts is not None
        super().__init__(task, lm, task.texts)
        self._how, self._model_names = task.rollouts, names_of(lm)
        self._host: AgentHost = host_of(task)
        self._endpoint = Endpoint()
        self._turns = asyncio.Semaphore(self._how.at_once)
        self._traces: dict[tuple[str, str], RolloutTrace] = {}

    async def run(self, candidate: Candidate, example: Example, call: Call, repeat: int = 0) -> Prediction:
        texts, own = dict(as_texts(candidate).texts), Request((), self.max_tokens(candidate), repeat=repeat)
        async with self._turns:
            with calls_of(self._named, {"promptassay.row.id": example.id}):
                rollout = RolloutCalls(call, own, texts, self._model_names, self._how.most_calls)
            made, fault = await self._rolled_out(rollout, texts, example)
        if (error := rollout.error()) is not None:
            raise error.with_traceback(None)
        fault = fault or rollout.fault
        trace = rollout.trace(example.inputs, fault, made.notes)
        if repeat == 0:
            self._traces[candidate.id, example.id] = trace
        if fault:
            self._raised.add((candidate.id, example.id))
            return Prediction({}, "", f"the agent {fault}", trace=trace.text)
        read, calls = read_answer(made.answer, self.task.signature), len(trace.steps)
        return replace(read, trace=trace.text, reported=made.score, calls=calls)

    async def _rolled_out(
        self, rollout: RolloutCalls, texts: Mapping[str, str], example: Example
    ) -> tuple[Rollout, str]:
        address = await self._endpoint.open(rollout)
        model = AgentModel(f"{address}/v1", address.rpartition("/")[2], self._model_names[0])
        try:
            return await self._host.run(texts, dict(example.inputs), model, self._how.seconds), ""
        except AgentFault as problem:
            if problem.is_late and rollout.is_waiting:
                seconds = f"{self._how.seconds:g} s"
                raise TransportUnknown(f"the model did not answer before the agent's {seconds} ended") from None
            return Rollout(None), str(problem)
        finally:
            self._endpoint.shut(address)

    def trace(self, candidate_id: str, row_id: str) -> RolloutTrace:
        return self._traces.get((candidate_id, row_id)) or super().trace(candidate_id, row_id)

    def placeholders(self, name: str, text: str) -> Counter[str]:
        return Counter(_HOLE.findall(text))

    def saved(self, candidate: Candidate, path: Path, spec: ReleaseSpec) -> tuple[str, Callable[[], None]]:
        task, signature = self.task, self.task.signature
        release = TextsRelease(
            name=task.name,
            texts=as_texts(candidate).texts,
            program=task.program,
            inputs=tuple(field.name for field in signature.inputs),
            outputs=signature.outputs,
            model=self._lm.name,
            parameters={},
            provenance=spec.provenance(candidate, task, calls_a_row=spec.evaluator.calls_a_row(candidate.id)),
        )
        release.write(path.parent)

        def load() -> None:
            if self.released(read_texts(path)) != candidate:
                raise ReleaseError(f"{path}: holds other texts than those that were scored")

        return release.version, load

    def released(self, release: TextsRelease) -> TextsCandidate:
        own = self._baseline.texts
        if wrong := set(release.texts) ^ set(own):
            raise ReleaseError(
                f"{release.name}: its texts are {', '.join(release.texts)}, and those of the task {', '.join(own)} "
                f"({min(wrong)!r:.60} is in one of them alone); name the task that they are of, with --task"
            )
        return replace(self._baseline, texts={name: release.texts[name] for name in own})

    async def close(self) -> None:
        await self._host.close()
        await self._endpoint.close()


def host_of(task: Task) -> AgentHost:
    """Return what runs the agent of a task; its function must be registered."""
    assert task.rollouts is not None
    how, folder = task.rollouts, Path(task.folder)
    if how.function:
        return InProcess(require_agent(task, "name a task whose program is FILE.py:NAME").function)
    if how.command:
        return Commands(how.command, folder)
    path, _, function = how.run.rpartition(":")
    return PythonProcesses(folder / path, function)


def names_of(lm: LM) -> tuple[str, ...]:
    """Return the names that an agent may use for the model; it learns the first.

    Frameworks read a slash in a name as a provider of theirs, so the name that an agent is told has none.
    """
    served = lm.name.partition("/")[2].partition("@")[0] or lm.name
    return tuple(dict.fromkeys([served.rpartition("/")[2], served, lm.name]))


def read_answer(answer: Any, signature: Signature) -> Prediction:
    """Read an agent's answer: a reply, an object of fields, or the one output's value."""
    if isinstance(answer, str):
        return parse_reply(answer, signature.outputs)
    names = [field.name for field in signature.outputs]
    if isinstance(answer, Mapping) and (len(names) > 1 or set(answer) == set(names)):
        return read_fields(answer.get, signature, "answer")
    if len(names) == 1 and answer is not None:
        return read_fields({names[0]: answer}.get, signature, "answer")
    words = f"the agent gave {type(answer).__name__}, not {', '.join(names)}"
    return Prediction({}, "" if answer is None else str(answer), words)
