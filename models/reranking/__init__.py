"""The second stage of candidate re-ranking: a cross-encoder that reads query and candidate."""
