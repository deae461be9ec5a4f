"""Past one machine: streams spread over workers, one model over several ranks, sessions of a fleet merged."""
