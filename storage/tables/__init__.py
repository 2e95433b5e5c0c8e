"""Tables: schemas, keys, publish-once parts, receipts and plans."""
