"""What tools/bench.py measures: one section to a file, all into one record."""
