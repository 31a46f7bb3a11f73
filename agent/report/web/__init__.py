"""The ledger in the browser: our pages on Starlette, behind access control, with Datasette below them for SQL.

access.py        what may pass: address, token, method; the headers of every reply; errors as pages
app.py           which address is which page, as HTML or as JSON; Datasette; the server on loopback
page_request.py  one request: an open ledger, the parameters of the address, the cache; what a page is
parts.py         blocks that several pages share
ledger_pages.py, run_pages.py, trial_pages.py, row_pages.py, registry_pages.py    the pages that only read
people_pages.py, playground_page.py    those with a form that writes or asks
                 The calls of the playground are made by agent/jobs/playground.py.
sql_database.py  the ledger for Datasette's own pages: SQL and JSON
(agent/safe_sql.py answers SQL in a child process)
"""

from agent.extras import require

require("ui", "optimize ui")
