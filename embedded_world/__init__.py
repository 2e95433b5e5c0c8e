"""The embedded world: drawn scenes with known content, their language and their pictures.

It exists so that everything can be run, tested and trained without a download. Nothing that is
computed from it may be quoted without saying "embedded world".
"""
