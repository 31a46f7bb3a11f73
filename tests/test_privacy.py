"""No third party watches unless the user asked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.redact import silence_tracing

_WATCHERS = """
LANGSMITH_TRACING LANGSMITH_TRACING_V2 LANGSMITH_TRACING_MODE LANGSMITH_ENDPOINT LANGSMITH_RUNS_ENDPOINTS
LANGSMITH_GATEWAY LANGSMITH_OTEL_ENABLED LANGCHAIN_TRACING LANGCHAIN_TRACING_V2 LANGCHAIN_WANDB_TRACING
LANGCHAIN_HANDLER OTEL_EXPORTER_OTLP_ENDPOINT OTEL_EXPORTER_OTLP_HEADERS OTEL_TRACES_EXPORTER OTEL_LOGS_EXPORTER
MLFLOW_TRACKING_URI MLFLOW_REGISTRY_URI LITELLM_CALLBACKS OPIK_URL_OVERRIDE WANDB_BASE_URL LANGFUSE_HOST SENTRY_DSN
"""
WATCHERS = _WATCHERS.split()
OTHERS = ["OPENAI_API_KEY", "LANGSMITH_API_KEY", "LANGCHAIN_OPENAI_TCP_KEEPALIVE", "HTTPS_PROXY", "PATH", "MY_EXPORTER"]


def test_all_watchers_go_by_name_and_nothing_else_does() -> None:
    environ = dict.fromkeys([*WATCHERS, *OTHERS], "true")
    assert silence_tracing(environ) == tuple(sorted(WATCHERS))
    assert set(WATCHERS).isdisjoint(environ)
    assert {name: environ[name] for name in OTHERS} == dict.fromkeys(OTHERS, "true")


def test_the_switches_that_say_no_are_set_over_any_that_say_yes() -> None:
    environ = {"DO_NOT_TRACK": "0", "WANDB_MODE": "online"}
    assert silence_tracing(environ) == ()
    assert (environ["DO_NOT_TRACK"], environ["WANDB_MODE"]) == ("1", "disabled")
    assert (environ["HF_HUB_DISABLE_TELEMETRY"], environ["OPENAI_AGENTS_DISABLE_TRACING"]) == ("1", "1")


@pytest.mark.parametrize("word", ["1", "0", "true"])
def test_only_the_one_word_lets_them_in(word: str) -> None:
    environ = {"OPTIMIZE_ALLOW_TRACING": word, "LANGSMITH_TRACING": "true"}
    before = dict(environ)
    silence_tracing(environ)
    assert (environ == before) is (word == "1")


MLFLOW_MODEL = """
import mlflow.pyfunc
model = os.path.join(os.environ["HOME"], "model.py")
with open(model, "w") as file:
    file.write('''
import mlflow
class Prompt(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[dict[str, str]]) -> list[str]:
        return [row["a"] for row in model_input]
mlflow.models.set_model(Prompt())
''')
mlflow.pyfunc.save_model(model + "-saved", python_model=model, pip_requirements=["mlflow"])
assert mlflow.pyfunc.load_model(model + "-saved").predict([{"a": "1"}]) == ["1"]
"""
MLFLOW = """
import json, os, socket, sys, time
tried = []
socket.socket.connect = lambda self, place: tried.append(place)
socket.getaddrinfo = lambda host, *more, **named: tried.append(host)
from agent.redact import silence_tracing
silence_tracing(os.environ)
exec(sys.argv[1])
from mlflow.telemetry.client import get_telemetry_client
time.sleep(0.5)
print(json.dumps([get_telemetry_client() is None, [str(place) for place in tried]]))
"""


def test_mlflow_starts_no_telemetry_and_looks_up_no_host(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("pandas")
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environ = {**kept, "HOME": str(tmp_path)}  # outside of tests and CI, where it would be off anyway
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW, MLFLOW_MODEL], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == "[true, []]\n", done.stderr
