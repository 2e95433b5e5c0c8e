"""What pages show of finished evaluations, galleries and reports."""
