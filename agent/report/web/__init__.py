"""The ledger in the browser: Datasette over the file, read-only, with our pages in front and a gate before all of it.

gate.py       who may ask at all: address, token, method; the headers of every reply
app.py        Datasette with our routes, and the server on loopback
routes.py     a path to what is gathered and the template that shows it, or the same data as JSON
ask.py        one request: an open ledger, the words of the address, what was gathered before
runs.py, trials.py, audit.py, rating.py    the pages
database.py   the ledger for Datasette's own pages: SQL and JSON
sql_child.py  what a child process does with a question in SQL
"""
