"""How the embedded models are made: one command per model, and the gates that they must meet.

Every recipe trains on scenes outside the held-out split, takes its randomness from (seed, step),
resumes from its checkpoint, and writes a folder in the library's own format with a `recipe.json`
of settings and measures.
"""
