"""The arena: prompt optimizers compete on the same rows, with the same task model and the same number of calls."""
