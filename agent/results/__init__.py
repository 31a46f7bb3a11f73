"""What jobs return: frozen models whose JSON is what `--json` prints and the ledger keeps."""
