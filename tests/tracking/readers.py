"""What trackers have written on this machine, read by what their own packages bring."""

from __future__ import annotations

import json
import os
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Written:
    """One run: curves as (place, value) by name, artifacts as bytes by file name, tables as (columns, rows)."""

    name: str = ""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    tables: dict[str, tuple[list[str], list[list[Any]]]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    succeeded: bool = False


def of_mlflow(folder: Path) -> Written:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{(folder / 'mlflow.db').resolve()}")
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    written = Written(str(run.info.run_name), dict(run.data.params), dict(run.data.tags))
    written.succeeded = run.info.status == "FINISHED"
    for name, value in run.data.metrics.items():
        written.curves[name] = [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
        written.figures[name] = value
    for file in client.list_artifacts(run.info.run_id):
        written.files[file.path] = Path(client.download_artifacts(run.info.run_id, file.path)).read_bytes()
    for name, data in written.files.items():
        if name.endswith(".json"):
            table = json.loads(data)
            written.tables[name.removesuffix(".json")] = table["columns"], table["data"]
    return written


def of_wandb(folder: Path) -> Written:
    (place,) = (folder / "wandb").glob("offline-run-*")
    (file,) = place.glob("*.wandb")
    written = Written()
    for record in records_of(file.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            written.name = record.run.display_name
            written.params = {item.key: str(json.loads(item.value_json)) for item in record.run.config.update}
            written.tags = dict(tag.split("=", 1) for tag in record.run.tags)
        elif kind == "history":
            found = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            for name in {*found} & {*CURVES}:
                written.curves.setdefault(name, []).append((found[CURVES[name]], found[name]))
        elif kind == "summary":
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
            }
            written.figures |= {name: value for name, value in values.items() if isinstance(value, int | float)}
        elif kind == "artifact":
            for entry in record.artifact.manifest.contents:
                written.files[entry.path] = Path(entry.local_path).read_bytes()
        elif kind == "exit":
            written.succeeded = record.exit.exit_code == 0
    for path in (place / "files" / "media" / "table").glob("trials_*.json"):
        table = json.loads(path.read_text("utf-8"))
        written.tables["trials"] = table["columns"], table["data"]
    return written


CURVES = {"dev by trial": "trial", "best dev by calls": "calls", "best dev by cost": "hundredths of a cent"}


def records_of(data: bytes) -> Iterator[Any]:
    """The records of a .wandb file: frames of a LevelDB log after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2 as messages

    place, parts = 7, b""
    while place + 7 <= len(data):
        if (left := 32768 - place % 32768) < 7:
            place += left
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + 7])
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # the whole of a record, or its last part
            record = messages.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def of_clearml(folder: Path) -> Written:
    from clearml.backend_api.services.v2_9 import events, tasks

    (session,) = (folder / "clearml").rglob("offline-*.zip")
    written = Written(succeeded=True)
    with zipfile.ZipFile(session) as archive:
        task = json.loads(archive.read("task.json"))
        parsed = tasks.Task.from_dict({name: task[name] for name in ("name", "tags", "hyperparams")})
        assert not task.get("script", {}).get("diff")
        written.name, written.tags = str(parsed.name), dict(tag.split("=", 1) for tag in parsed.tags)
        written.params = {name: str(each["value"]) for name, each in task["hyperparams"]["promptassay"].items()}
        for line in archive.read("metrics.jsonl").decode().splitlines():
            for event in json.loads(line):
                if event["type"] == "training_stats_scalar":
                    point = events.MetricsScalarEvent(
                        **{key: event[key] for key in ("task", "metric", "variant", "value", "iter")}
                    )
                    if point.metric == "Summary":
                        written.figures[str(point.variant)] = float(point.value)
                    else:
                        written.curves.setdefault(str(point.metric), []).append((event["iter"], float(point.value)))
                elif event["type"] == "plot":
                    (drawn,) = json.loads(event["plot_str"])["data"]
                    columns, cells = drawn["header"]["values"], drawn["cells"]["values"]
                    written.tables[event["metric"]] = (
                        [str(name) for name in columns],
                        [list(row) for row in zip(*cells, strict=True)],
                    )
        written.files = {
            os.path.basename(name): archive.read(name) for name in archive.namelist() if "/artifacts/" in name
        }
    return written


READERS: dict[str, Callable[[Path], Written]] = {"mlflow": of_mlflow, "wandb": of_wandb, "clearml": of_clearml}
