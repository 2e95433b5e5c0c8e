"""Prompt texts, one Markdown file each; the file is the prompt."""
