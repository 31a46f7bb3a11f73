"""What a package of others adds to Promptassay: a metric, model, format, kind of program and strategy, a file each."""
