"""Methods as data: features, fusion, exact search, metrics and published results."""
