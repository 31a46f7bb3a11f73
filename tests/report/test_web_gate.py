"""Nobody without the link sees a page, and nobody at all can write but for ratings."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from agent.errors import LedgerError
from agent.report.web.app import bind, make
from tests.conftest import Made
from tests.report.pages import Page
from tests.report.web_world import BASE, PORT, signed_in

DB = Path("runs/ledger.db")
ADDRESSES = (
    "/",
    "/runs.json",
    "/compare",
    "/audit",
    "/releases",
    "/aliases",
    "/ledger",
    "/ledger/runs",
    "/ledger.json?sql=select+1",
    "/nothing",
)


async def test_without_the_token_every_address_is_refused(two_runs: Made) -> None:
    web = make(DB, PORT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE) as stranger:
        for address in ADDRESSES:
            reply = await stranger.get(address)
            assert reply.status_code == 403
            assert "optimize ui" in reply.text
            assert two_runs[0]["run_id"] not in reply.text
        for headers in ({"authorization": f"Bearer {web.token}x"}, {"cookie": f"promptassay_{PORT}=x"}):
            assert (await stranger.get("/", headers=headers)).status_code == 403
        assert (await stranger.get(f"/?token={web.token[:-1]}")).status_code == 403
        assert (await stranger.get("/runs.json", headers={"authorization": f"Bearer {web.token}"})).status_code == 200
        assert not stranger.cookies


async def test_the_link_sets_a_cookie_and_leaves_the_address(two_runs: Made) -> None:
    web = make(DB, PORT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=web.app), base_url=BASE) as client:
        reply = await client.get(f"/compare?a=1&token={web.token}&b=2")
        assert (reply.status_code, reply.headers["refresh"]) == (200, "0;url=/compare?a=1&b=2")
        cookie = reply.headers["set-cookie"]
        assert cookie.startswith(f"promptassay_{PORT}=")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert (await client.get("/")).status_code == 200
        for where, there in (("//evil.example/", "/evil.example/"), ("/%09/evil.example", "/%09/evil.example")):
            outside = await client.get(f"{BASE}{where}?token={web.token}")
            assert outside.headers["refresh"] == f"0;url={there}"
        other = await client.get(f"/run/%C3%A9%0D%0A?token={web.token}")
        assert other.headers["refresh"] == "0;url=/run/%C3%A9%0D%0A"


@pytest.mark.parametrize("host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", f"127.0.0.1:{PORT + 1}", ""])
async def test_another_name_for_this_machine_is_refused(two_runs: Made, host: str) -> None:
    async with signed_in(DB) as (client, web):
        headers = {"host": host, "authorization": f"Bearer {web.token}"}
        assert (await client.get("/runs.json", headers=headers)).status_code == 403
        assert (await client.get("/runs.json", headers={"host": f"localhost:{PORT}"})).status_code in (200, 403)
        assert (await client.get("/", headers=headers | {"host": f"localhost:{PORT}"})).status_code == 200


async def test_pages_of_others_cannot_ask_in_my_name(two_runs: Made) -> None:
    address = f"/run/{two_runs[0]['run_id']}/rate"
    async with signed_in(DB) as (client, _):
        for site in ("cross-site", "same-site"):
            assert (await client.get("/", headers={"sec-fetch-site": site})).status_code == 403
        assert (await client.get("/", headers={"sec-fetch-site": "same-origin"})).status_code == 200
        page = Page((await client.get(f"{address}?rater=Ann")).text)
        form = {name: page.field(name) for name in ("csrftoken", "rater", "item", "skipped")}
        form |= {"rating": "1", "action": "save"}
        without = {name: value for name, value in form.items() if name != "csrftoken"}
        assert (await client.post(address, data=without)).status_code == 403
        assert (await client.post(address, data=form | {"csrftoken": "x"})).status_code == 403
        assert (await client.post(address, json=form)).status_code == 415
        assert (await client.post(address, data=form, headers={"origin": "http://evil.example"})).status_code == 403
        assert (await client.post(address, data=form, headers={"origin": "null"})).status_code == 403
        assert (await client.post(address, data=form | {"rater": "A" * 70_000})).status_code == 413
        assert (await client.post(address, data=form, files={"more": ("a.txt", b"a")})).status_code == 415
        assert (await client.post(address, data=form | {f"more{n}": "1" for n in range(300)})).status_code == 400
        assert not (DB.parent / two_runs[0]["run_id"] / "ratings.jsonl").exists()
        assert (await client.post(address, data=form, headers={"origin": BASE})).status_code == 303
        browser = {"origin": "null", "sec-fetch-site": "same-origin"}  # as it sends it from a page without referrer
        assert (await client.post(address, data=form, headers=browser)).status_code == 303


async def test_nothing_but_ratings_takes_a_post(two_runs: Made) -> None:
    async with signed_in(DB) as (client, web):
        for address in (*ADDRESSES, "/-/logout", "/-/messages", f"/run/{two_runs[0]['run_id']}"):
            for headers in ({}, {"authorization": f"Bearer {web.token}"}):
                assert (
                    await client.post(address, data={"sql": "delete from runs"}, headers=headers)
                ).status_code == 405
        for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await client.request(method, "/ledger/runs")).status_code == 405


@pytest.mark.parametrize(
    "sql",
    [
        "delete from runs",
        "insert into head values (2, 1, '')",
        "with x as (select 1) delete from runs",
        "with x as (select 1) update runs set status = 'x'",
        "explain delete from runs",
        "pragma journal_mode = delete",
        "attach database 'x.db' as x",
        "vacuum into 'x.db'",
        "create table x (y)",
        "select load_extension('x')",
        "select 1; delete from runs",
        "select * from pragma_wal_checkpoint",
        "select zeroblob(1000000000)",
    ],
)
async def test_no_sql_changes_anything(two_runs: Made, sql: str) -> None:
    before = hashlib.sha256(DB.read_bytes()).hexdigest()
    async with signed_in(DB) as (client, _):
        for address in ("/ledger", "/ledger.json"):
            reply = await client.get(address, params={"sql": sql})
            assert reply.status_code == 400, reply.text
        assert (await client.get("/ledger.json?sql=select+count(*)+from+runs")).json()["rows"] == [[2]]
    assert hashlib.sha256(DB.read_bytes()).hexdigest() == before
    assert not Path("x.db").exists()


async def test_sql_that_takes_too_long_is_stopped(two_runs: Made) -> None:
    endless = "with recursive n(x) as (select 1 union all select x + 1 from n) select count(*) from n"
    async with signed_in(DB) as (client, _):
        for address in ("/ledger", "/ledger.json"):
            reply = await client.get(address, params={"sql": endless})
            assert reply.status_code == 400
            assert "too long" in reply.text
            assert "<script" not in reply.text


@pytest.mark.parametrize(
    "address",
    ["/-/plugins", "/-/settings.json", "/-/databases", "/-/static/app.css", "/ledger.db", "/ledger.csv?sql=select+1",
     "/ledger/runs.csv", "/ledger/runs.csv?_stream=1", "/ledger/calls/1.blob?_blob_column=state", "/_internal",
     "/_internal/databases", "/_memory", "/:memory:", "/.jsono", "/favicon.ico", "/%2D/threads.json", "//-/databases",
     "/x/../-/plugins", "/ledger/runs%2Ecsv", "/ledger.jsono?sql=select+1", "/assets/../app.py", "/assets/web.css"],
)  # fmt: skip
async def test_what_is_not_given_out(two_runs: Made, address: str) -> None:
    async with signed_in(DB) as (client, _):
        assert (await client.get(address)).status_code in (403, 404)


@pytest.mark.parametrize(
    "address",
    ["/ledger/runs?_timelimit=x", "/ledger?sql=select+1&_timelimit=x", "/ledger/runs?_through=%7B",
     "/ledger/runs?_sort=x",
     "/ledger/runs?task__in=%5B", "/ledger/runs?_facet=task", "/ledger/runs?_where=x", "/?" + "a&" * 300],
)  # fmt: skip
async def test_an_address_that_cannot_be_read_is_the_askers_mistake(
    two_runs: Made, capfd: pytest.CaptureFixture[str], address: str
) -> None:
    async with signed_in(DB) as (client, _):
        assert (await client.get(address)).status_code == 400
    assert capfd.readouterr() == ("", "")


async def test_what_is_asked_in_sql_is_not_printed_on_the_terminal(
    two_runs: Made, capfd: pytest.CaptureFixture[str]
) -> None:
    async with signed_in(DB) as (client, _):
        for sql in ("select [\x1b]0;owned\x07]", "select \x1b[2J"):
            assert (await client.get("/ledger", params={"sql": sql})).status_code == 400
    assert capfd.readouterr() == ("", "")


async def test_what_cannot_be_seen_is_shown_as_a_mark_on_the_pages_of_sql_too(two_runs: Made) -> None:
    unseen = (0x202E, 0xE0041, 0xAD, 0x180E, 0x200B, 0x7F)
    asked = " || ".join(["'a'", *(f"char({code})" for code in unseen)])
    async with signed_in(DB) as (client, _):
        shown = (await client.get("/ledger", params={"sql": f"select {asked} as q"})).text
    assert "a" + "".join(f"\\x{code:02x}" for code in unseen) in shown
    assert not any(chr(code) in shown for code in unseen)


async def test_an_address_with_a_part_of_a_key_is_no_page(two_runs: Made, capfd: pytest.CaptureFixture[str]) -> None:
    async with signed_in(DB) as (client, _):
        for address in ("/ledger/outcomes/~2Ecsv", "/ledger/outcomes/x,y", "/ledger/outcomes/x.json"):
            assert (await client.get(address)).status_code == 404
    assert capfd.readouterr() == ("", "")


async def test_lines_of_json_can_be_read_whatever_they_hold(two_runs: Made) -> None:
    text = "\x7f\x1b\u200b\u202e\x85"
    async with signed_in(DB) as (client, _):
        asked = {"sql": "select :said as said", "said": text, "_shape": "array", "_nl": "on"}
        reply = await client.get("/ledger.json", params=asked)
        assert json.loads(reply.text) == {"said": text}
        assert reply.text.isprintable()


async def test_every_reply_carries_the_headers(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        for address in (*ADDRESSES, f"/run/{two_runs[0]['run_id']}", "/assets/style.css", "/ledger?sql=nothing"):
            headers = (await client.get(address)).headers
            policy = headers["content-security-policy"]
            assert policy.startswith("default-src 'none'")
            assert "'unsafe-inline'" not in policy.replace("style-src-attr 'unsafe-inline'", "")
            assert "frame-ancestors 'none'" in policy
            assert "base-uri 'none'" in policy
            assert ("script-src" in policy) == (not address.startswith("/ledger"))
            kept = ("x-content-type-options", "referrer-policy", "cache-control", "x-frame-options")
            assert [headers[name] for name in kept] == ["nosniff", "no-referrer", "no-store", "DENY"]


def test_a_damaged_ledger_is_not_shown(two_runs: Made) -> None:
    with DB.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 4096)
    with pytest.raises(LedgerError):
        make(DB, PORT)


async def test_a_head_request_has_the_headers_and_no_body(two_runs: Made) -> None:
    async with signed_in(DB) as (client, _):
        for address in ("/", "/runs.json", "/ledger/runs"):
            reply = await client.head(address)
            assert (reply.status_code, reply.content) == (200, b"")
            assert reply.headers["cache-control"] == "no-store"


def test_an_installed_plugin_is_not_even_imported(two_runs: Made, here: Path) -> None:
    """With plain Datasette, in the same place, it is."""
    Path("evil_plugin.py").write_text("print('imported')", "utf-8")
    info = Path("evil_plugin-1.0.dist-info")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil-plugin\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[datasette]\nevil = evil_plugin\n", "utf-8")
    ours = "from pathlib import Path; from agent.report.web.app import make; make(Path('runs/ledger.db'), 1)"
    said = {}
    for name, code in (("plain", "import datasette.plugins"), ("ours", ours)):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 0, done.stderr
        said[name] = done.stdout
    assert said == {"plain": "imported\n", "ours": ""}


def test_only_this_machine_is_listened_on() -> None:
    with bind(0) as socket:
        assert socket.getsockname()[0] == "127.0.0.1"


COMMAND = [sys.executable, "-c", "from agent.cli import main; main()", "ui", "--no-open", "--json", "--db", str(DB)]


def get(url: str, **headers: str) -> int:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers=headers), timeout=20) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


ENDLESS = "select instr(zeroblob(8000000), zeroblob(4000000) || x'01')"
"""One call of one function of SQLite, in which nothing stops SQLite."""


@pytest.mark.parametrize(
    ("address", "asked"),
    [
        ("/ledger", {"sql": ENDLESS}),
        ("/ledger.json", {"sql": ENDLESS}),
        ("/ledger/runs", {"_where": f"({ENDLESS}) > 0"}),
    ],
)
async def test_a_function_that_takes_too_long_is_stopped(two_runs: Made, address: str, asked: dict[str, str]) -> None:
    async with signed_in(DB) as (client, _):
        reply = await client.get(address, params=asked)
        assert (reply.status_code, "too long" in reply.text) == (400, True), reply.text
        assert (await client.get("/ledger.json?sql=select+1")).json()["rows"] == [[1]]


@pytest.mark.parametrize(
    "sql",
    [
        "with recursive n(x) as (select 1 union all select x + 1 from n limit 400) select zeroblob(8000000) from n",
        "with recursive n(x) as (select 1 union all select x + 1 from n limit 400) "
        "select group_concat(x) from (select x, randomblob(8000000) as b from n order by b)",
        "select zeroblob(17000000)",
        "with recursive n(x) as (select 1 union all select x + 1 from n limit 40) select zeroblob(1000000) from n",
    ],
)
async def test_an_answer_that_takes_too_much_is_refused_in_words(two_runs: Made, sql: str) -> None:
    async with signed_in(DB) as (client, _):
        reply = await client.get("/ledger.json", params={"sql": sql})
        assert reply.status_code == 400
        assert re.search("too much memory|more than 32 MB|too big|too long", reply.json()["error"])
        assert (await client.get("/ledger.json?sql=select+1")).json()["rows"] == [[1]]


async def test_every_value_comes_back_as_sqlite_has_it(two_runs: Made) -> None:
    """Also of two columns with one name, and under a name that has quotes."""
    sql = """select 1 as a, 2 as a, -9223372036854775808 as b, 1e999 as c, null as "d"" 'e", x'00ff' as f,
        'é' || char(0) as g"""
    async with signed_in(DB) as (client, _):
        found = (await client.get("/ledger.json", params={"sql": sql})).json()
        assert found["columns"] == ["a", "a", "b", "c", "d\" 'e", "f", "g"]
        (row,) = found["rows"]
        assert row[:3] == [1, 2, -(2**63)]
        assert row[4:] == [None, {"$base64": True, "encoded": "AP8="}, "é\0"]
        shown = Page((await client.get("/ledger", params={"sql": sql})).text).words
        assert "d\" 'e" in shown
        many = "with recursive n(x) as (select 1 union all select x + 1 from n limit 1002) select x from n"
        found = (await client.get("/ledger.json", params={"sql": many})).json()
        assert (found["truncated"], len(found["rows"])) == (True, 1000)


def children(pid: int) -> set[int]:
    return {int(word) for file in Path(f"/proc/{pid}/task").glob("*/children") for word in file.read_text().split()}


def seconds(pid: int) -> float:
    """Of the processor, that a process has used."""
    with suppress(OSError):  # it has ended
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) / os.sysconf("SC_CLK_TCK")
    return 0.0


def answered(url: str, token: str) -> int | None:
    """The status; None where the server ended before it answered."""
    try:
        return get(url, Authorization=f"Bearer {token}")
    except OSError:
        return None


def test_the_first_ctrl_c_ends_the_server_and_whatever_is_being_asked(two_runs: Made) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as ui,
        ThreadPoolExecutor() as pool,
    ):
        assert ui.stdout is not None
        try:
            base, _, token = json.loads(ui.stdout.readline())["url"].partition("/?token=")
            endless = f"{base}/ledger?" + urlencode({"sql": ENDLESS})
            asked = [pool.submit(answered, endless, token) for _ in range(3)]
            for address in ("/runs.json", "/ledger.json?sql=select+1", "/audit.json"):  # while they take their time
                assert get(f"{base}{address}", Authorization=f"Bearer {token}") == 200
            assert [each.result() for each in asked] == [400] * 3
            asked = [pool.submit(answered, endless, token) for _ in range(4)]
            while not sum(
                int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[11]) for pid in children(ui.pid)
            ):
                time.sleep(0.01)  # until a child computes
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
    assert left
    assert {each.result() for each in asked} <= {500, None}  # called off
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_the_command_serves_until_it_is_told_to_stop(two_runs: Made) -> None:
    with subprocess.Popen(
        COMMAND,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as ui:
        assert ui.stdout is not None
        try:
            url = json.loads(ui.stdout.readline())["url"]
            base, _, token = url.partition("/?token=")
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", base)
            assert len(token) >= 32
            assert get(base) == 403
            assert get(base, Authorization=f"Bearer {token}") == 200
            assert get(base, Authorization=f"Bearer {token}", Host="evil.example") == 403
            assert get(f"{base}/run/{two_runs[0]['run_id']}.json", Authorization=f"Bearer {token}") == 200
        finally:
            ui.send_signal(signal.SIGINT)
        _, said = ui.communicate(timeout=20)
    assert ui.returncode == 0, said
    assert said.splitlines()[-1].startswith("ended")
    assert "Traceback" not in said
    assert token not in said
