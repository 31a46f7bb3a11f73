"""Public claims of gains by prompt optimization on few rows: what their figures show, and a rerun on their rows."""
