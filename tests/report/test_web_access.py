"""Who may see pages and who may write: tokens, hosts, forms, SQL that only reads, and what is never served."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from agent.errors import LedgerError
from agent.release.runtime import load_prompt
from agent.report.web.app import bind, make
from tests.cli.label_world import label_place
from tests.report.web_world import BASE, DB, PORT, Browser, browsing

COMMAND = [sys.executable, "-c", "from agent.cli import main; main()", "ui", "--no-open", "--json", "--db", str(DB)]
MAILS = Path("tasks/mails")


@pytest.fixture
def client(runs: Mapping[str, str]) -> Iterator[Browser]:
    with browsing(labelling=label_place(MAILS)) as found:
        yield found


def test_the_link_sets_a_cookie_and_leaves_the_address(runs: Mapping[str, str]) -> None:
    with browsing(signed_in=False) as client:
        token = client.web.token
        for wrong in ({"authorization": f"Bearer {token}x"}, {"cookie": f"promptassay_{PORT}=x"}):
            assert client.get("/", headers=wrong).status_code == 403
        assert client.get(f"/?token={token[:-1]}").status_code == client.post(f"/?token={token}").status_code == 403
        assert client.get("/runs.json", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert not client.cookies
        reply = client.get(f"/compare?a=1&token={token}&b=2")
        assert (reply.status_code, reply.headers["refresh"]) == (200, "0;url=/compare?a=1&b=2")
        assert reply.headers["set-cookie"].startswith(f"promptassay_{PORT}=")
        assert {"HttpOnly", "SameSite=Strict"} <= set(reply.headers["set-cookie"].split("; "))
        assert client.get("/").status_code == 200
        for where, there in (("//evil.example/", "/evil.example/"), ("/%09/evil.example", "/%09/evil.example")):
            assert client.get(f"{BASE}{where}?token={token}").headers["refresh"] == f"0;url={there}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        *(
            ({"host": host}, 403)
            for host in ("evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}")
        ),
        ({"host": f"localhost:{PORT}"}, 200),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_other_hosts_and_other_sites_are_refused(client: Browser, headers: dict[str, str], status: int) -> None:
    bearer = {"authorization": f"Bearer {client.web.token}"}
    assert client.get("/", headers=headers | bearer).status_code == status


def files() -> dict[Path, bytes]:
    """What a form could write."""
    found = [path for root in (Path("runs"), MAILS) for path in root.rglob("*") if path.is_file()]
    return {path: path.read_bytes() for path in found if not path.name.endswith(("-wal", "-shm", ".lock"))}


@pytest.mark.parametrize("page", ["rate", "label", "play", "release"])
def test_a_form_is_taken_from_its_page_alone(client: Browser, runs: Mapping[str, str], page: str) -> None:
    run, version = runs["search"], load_prompt("rows@production").version
    address, values = {
        "rate": (f"/run/{run}/rate?rater=Ann", {"rating": "1", "action": "save"}),
        "label": ("/label?labeller=Ann", {"action": "label:billing"}),
        "play": (f"/run/{run}/play", {"action": "show", "in.text": "x"}),
        "release": (f"/release/rows/{version}/play", {"action": "show", "in.text": "x"}),
    }[page]
    form, before = client.form(address, **values), files()
    address = address.partition("?")[0]
    without = {name: value for name, value in form.items() if name != "csrftoken"}
    origin, site = {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}
    refused: list[tuple[int, dict[str, Any]]] = [
        (403, {"data": without}),
        (403, {"data": form | {"csrftoken": "x"}}),
        *((403, {"data": form, "headers": headers}) for headers in (origin, {"origin": "null"}, site)),
        (415, {"json": form}),
        (415, {"data": form, "files": {"more": ("a.txt", b"a")}}),
        (413, {"data": form | {"rater": "A" * 70_000}}),
        (400, {"data": form | {f"more{n}": "1" for n in range(300)}}),
    ]
    for status, request in refused:
        assert client.post(address, **request).status_code == status, request
    assert files() == before
    for headers in ({"origin": BASE}, {"origin": "null", "sec-fetch-site": "same-origin"}):  # pages send no referrer
        assert client.post(address, data=form, headers=headers).status_code in (200, 303)


def test_other_pages_take_no_post_and_no_other_method(client: Browser, runs: Mapping[str, str]) -> None:
    pages = ("/", "/runs.json", "/aliases", "/releases", "/ledger", "/-/logout", f"/run/{runs['search']}", "/nothing")
    for headers in ({}, {"authorization": f"Bearer {client.web.token}"}):
        for address in pages:
            reply = client.post(address, data={"sql": "delete from runs"}, headers=headers)
            assert reply.status_code == 405, address
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert client.request(method, "/ledger/runs").status_code == 405


ENDLESS = "select instr(zeroblob(8000000), zeroblob(4000000) || x'01')"
"""One call of one function of SQLite, which SQLite itself cannot interrupt."""
MANY = "with recursive n(x) as (select 1 union all select x + 1 from n limit {})"
WRITES = """
delete from runs
insert into head values (2, 1, '')
with x as (select 1) update runs set status = 'x'
explain delete from runs
pragma journal_mode = delete
attach database 'x.db' as x
vacuum into 'x.db'
create table x (y)
select load_extension('x')
select 1; delete from runs
select * from pragma_wal_checkpoint
"""
TOO_MUCH = (
    "select zeroblob(1000000000)",
    "select zeroblob(17000000)",
    f"{MANY.format(400)} select zeroblob(8000000) from n",
    f"{MANY.format(40)} select zeroblob(1000000) from n",
    f"{MANY.format(400)} select group_concat(x) from (select x, randomblob(8000000) as b from n order by b)",
)
TOO_LONG = (ENDLESS, "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n")


@pytest.mark.parametrize("sql", [*WRITES.strip().split("\n"), *TOO_MUCH, *TOO_LONG])
def test_sql_only_reads_and_only_so_much(client: Browser, capfd: pytest.CaptureFixture[str], sql: str) -> None:
    before = hashlib.sha256(DB.read_bytes()).hexdigest()
    reply = client.get("/ledger.json", params={"sql": sql})
    assert reply.status_code == 400, reply.text
    if sql in TOO_MUCH[1:]:
        assert re.search("too much memory|more than 32 MB|too big|too long", reply.json()["error"])
    assert (sql in TOO_LONG) <= ("too long" in reply.json()["error"])
    assert client.data("/ledger.json?sql=select+1")["rows"] == [[1]]
    assert (hashlib.sha256(DB.read_bytes()).hexdigest(), Path("x.db").exists()) == (before, False)
    assert capfd.readouterr() == ("", "")


NOT_SERVED = """
/-/plugins /-/settings.json /-/databases /-/static/app.css /ledger.db /ledger.csv?sql=select+1 /ledger/runs.csv
/ledger/runs.csv?_stream=1 /ledger/calls/1.blob?_blob_column=state /_internal /_internal/databases /_memory /:memory:
/.jsono /favicon.ico /%2D/threads.json //-/databases /x/../-/plugins /ledger/runs%2Ecsv /ledger.jsono?sql=select+1
/assets/../app.py /assets/..%2Fapp.py /ledger/outcomes/~2Ecsv /ledger/outcomes/x,y /ledger/outcomes/x.json /run/nothing
/release/..%2f../V /release/..%2Freleases%2Frows/V /release/%2e%2e/V.json /release/./V/play /release/rows%00/V
/release/nothing/V /release/rows%2f..%2frows/V /checks/nothing /call/0 /run/nothing/rows
"""
MALFORMED = """
/ledger/runs?_timelimit=x /ledger?sql=select+1&_timelimit=x /ledger/runs?_through=%7B /ledger/runs?_sort=x
/ledger/runs?task__in=%5B /ledger/runs?_facet=task /ledger/runs?_where=x /ledger?sql=select+[%1B]0;owned%07]
"""


@pytest.mark.parametrize(("status", "words"), [(404, NOT_SERVED), (400, MALFORMED)])
def test_addresses_that_are_not_served(
    client: Browser, capfd: pytest.CaptureFixture[str], status: int, words: str
) -> None:
    version = load_prompt("rows@production").version
    many = ["/?" + "a&" * 300] * (status == 400)
    for address in (*words.split(), *many):
        reply = client.get(address.replace("/V", f"/{version}"))
        assert reply.status_code in {status, 403} if status == 404 else reply.status_code == status, address
    assert capfd.readouterr() == ("", "")


def test_values_come_back_as_sqlite_has_them_and_unseen_characters_as_marks(client: Browser) -> None:
    sql = "select 1 as a, 2 as a, -9223372036854775808 as b, null as \"d\"\" 'e\", x'00ff' as f, 'é' || char(0) as g"
    found = client.data("/ledger.json", sql=sql)
    assert found["columns"] == ["a", "a", "b", "d\" 'e", "f", "g"]
    assert found["rows"] == [[1, 2, -(2**63), None, {"$base64": True, "encoded": "AP8="}, "é\0"]]
    found = client.data("/ledger.json", sql=f"{MANY.format(1002)} select x from n")
    assert (found["truncated"], len(found["rows"])) == (True, 1000)
    unseen = (0x202E, 0xE0041, 0xAD, 0x180E, 0x200B, 0x7F)
    shown = client.get(
        "/ledger", params={"sql": f"select 'a' || {' || '.join(f'char({code})' for code in unseen)}"}
    ).text
    assert "a" + "".join(f"\\x{code:02x}" for code in unseen) in shown
    assert not any(chr(code) in shown for code in unseen)
    text = "\x7f\x1b\u200b\u202e\x85"
    lines = client.get("/ledger.json", params={"sql": "select :t as t", "t": text, "_shape": "array", "_nl": "on"}).text
    assert (json.loads(lines), lines.isprintable()) == ({"t": text}, True)


def test_a_damaged_ledger_is_not_shown(runs: Mapping[str, str]) -> None:
    with DB.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerError):
        make(DB, PORT)


def test_an_installed_plugin_is_not_even_imported(runs: Mapping[str, str], here: Path) -> None:
    """With plain Datasette, in the same place, it is."""
    Path("evil_plugin.py").write_text("print('imported')", "utf-8")
    info = Path("evil_plugin-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-plugin\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[datasette]\nevil = evil_plugin\n", "utf-8")
    ours = "from pathlib import Path; from agent.report.web.app import make; make(Path('runs/ledger.db'), 1)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
    for code, said in (("import datasette.plugins", "imported\n"), (ours, "")):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
        assert done.stdout == said


def get(url: str, **headers: str) -> int | None:
    """The status; None where the server ended before it answered."""
    try:
        return httpx.get(url, headers=headers, timeout=20, trust_env=False).status_code
    except httpx.HTTPError:
        return None


def children(pid: int) -> dict[int, float]:
    """Children of a process with the processor time that they used."""
    found = {}
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in file.read_text().split():
            with suppress(OSError):  # it has ended
                found[int(child)] = float(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[11])
    return found


def test_the_command_serves_this_machine_until_ctrl_c_and_ends_whatever_is_being_asked(runs: Mapping[str, str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as ui,
        ThreadPoolExecutor() as pool,
    ):
        assert ui.stdout is not None
        try:
            base, _, token = json.loads(ui.stdout.readline())["url"].partition("/?token=")
            mine = {"Authorization": f"Bearer {token}"}
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", base)
            assert (len(token) >= 32, get(base), get(base, **mine)) == (True, 403, 200)
            assert get(base, **mine, Host="evil.example") == 403
            endless = f"{base}/ledger?" + urlencode({"sql": ENDLESS})
            asked = [pool.submit(get, endless, **mine) for _ in range(3)]
            while not sum(children(ui.pid).values()):
                time.sleep(0.01)  # until a child computes
            assert get(f"{base}/ledger.json?sql=select+1", **mine) == 200  # meanwhile
            left = children(ui.pid)
        finally:
            ui.send_signal(signal.SIGINT)
            try:
                _, said = ui.communicate(timeout=20)
            finally:
                ui.kill()
    assert ui.returncode == 0, said
    assert said.splitlines()[-1].startswith("ended")
    assert "Traceback" not in said
    assert token not in said
    assert {each.result() for each in asked} <= {400, 500, None}  # stopped or called off
    assert left
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_only_loopback_is_listened_on() -> None:
    with bind(0) as socket:
        assert socket.getsockname()[0] == "127.0.0.1"
