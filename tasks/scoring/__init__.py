"""From rankings to metrics, the score ledger and sweeps."""
