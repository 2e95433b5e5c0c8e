"""Engines that answer prompts, one file per engine."""
