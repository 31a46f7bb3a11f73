"""The ledger in the browser: our pages on Starlette behind access control, and Datasette's pages for SQL.

access.py        address, token and method checks; security headers; errors as pages
app.py           routes, as HTML and JSON; Datasette; the server on loopback
page_request.py  one request: an open ledger, URL parameters, the cache; the definition of a page
parts.py         blocks shared by several pages
ledger_pages.py, run_pages.py, trial_pages.py, row_pages.py, registry_pages.py    read-only pages
labelling_pages.py, playground_page.py    pages with a form that writes or calls a model
                 (the calls are made by agent/jobs/playground.py)
only_datasette.py    Datasette without the plugins that are installed
sql_database.py  the ledger for Datasette's pages: SQL and JSON
                 (agent/safe_sql.py runs SQL in a child process)
"""

from agent.extras import require

require("ui", "optimize ui")
