"""The report: plain records in, one self-contained HTML file out."""
