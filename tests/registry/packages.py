"""Packages of others as pip would leave them in a folder: modules next to a .dist-info. Nothing is installed."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from pathlib import Path

PLUGIN = Path(__file__).resolve().parents[1] / "assets" / "plugin"


def install(folder: Path, name: str, version: str, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Writes what says of a distribution which entry points it has."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", "utf-8")
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{point} = {module}" for point, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", "utf-8")


def install_plugin(folder: Path) -> Path:
    """The package in tests/assets/plugin, as its pyproject.toml says."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text("utf-8"))["project"]
    shutil.copytree(PLUGIN / "acme_assay", folder / "acme_assay", ignore=shutil.ignore_patterns("__pycache__"))
    install(folder, project["name"], project["version"], project["entry-points"])
    return folder
