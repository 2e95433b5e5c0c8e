"""Everything that computes on tensors and text; nothing here reads or writes storage."""
