"""How the embedded models are made: one re-runnable command per model.

Every recipe trains on scenes outside the held-out split, takes its randomness from (seed, step),
resumes from its checkpoint and writes a model directory in the library's own format together with
a `recipe.json` that says how it was made and how well it does.
"""
