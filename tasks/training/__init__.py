"""Trainings as resumable jobs that publish one folder each."""
