"""Everything that a prompt may have, one part per file. Other code only knows `part.py` and walks over parts."""
