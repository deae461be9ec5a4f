"""Plans of runs, made one by one under one of two protocols, and the record of each."""
