"""Analyses of run folders, and measures taken while a network trains."""
