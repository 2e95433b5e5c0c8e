"""Models that look at a query and a candidate, one file per family."""
