"""The ledger in the browser: Datasette over the file, read-only, behind access control, with our pages in front.

access.py        what may pass: address, token, method; the headers of every reply
app.py           a path to what is gathered and its template, or the same as JSON; Datasette; the server on loopback
page_request.py  one request: an open ledger, the parameters of the address, the cache
run_pages.py, compare_page.py, rows_page.py, audit_page.py, rating_page.py, registry_pages.py,
playground_page.py, checks_page.py    the pages
drawing.py       what charts on them need
tried_prompts.py the prompts and rows of the playground, whose calls an `Asker` makes (agent/jobs/playground.py)
sql_database.py  the ledger for Datasette's own pages: SQL and JSON
sql_child.py     answers SQL in a child process
"""
