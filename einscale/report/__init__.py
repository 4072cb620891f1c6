"""Placeholder until this package is written."""
