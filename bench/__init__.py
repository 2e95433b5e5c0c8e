"""Speed ratios, each against a naive baseline in the same run."""
