"""Everything that touches bytes: locations, tables, image collections, benchmarks."""
