"""Everything that a prompt may have, one part a file. Code elsewhere knows `part.py` and walks over parts."""
