"""The picture of a report in README.md and the manual, from the latest run in runs/ledger.db or in another ledger.

    python -m tests.bench.report_picture [LEDGER]

Needs Chromium. Writes docs/report.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from agent.ledger.query import History
from agent.report.html import report_html
from agent.report.view import RunView
from tests.report.chromium import CHROMIUM

WIDTH, HEIGHT = 1040, 705
TARGET = Path(__file__).resolve().parents[2] / "docs" / "report.png"


def main() -> None:
    from playwright.sync_api import sync_playwright

    ledger = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/ledger.db")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        html = Path(folder) / "report.html"
        html.write_text(report_html(RunView(History(ledger))), "utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(html.as_uri())
        page.screenshot(path=TARGET)
        browser.close()
    print(f"wrote {TARGET}: {TARGET.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
