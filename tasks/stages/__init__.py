"""Stages: each plans the rows of one table, makes them shard by shard and publishes them.

A stage is a frozen value. It knows the keys its table should hold and how to make the rows of
some of them; planning, publishing and resuming are the same for all (`tasks/stages/run.py`).
"""
