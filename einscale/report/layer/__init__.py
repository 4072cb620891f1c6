"""Layers of a step as a report."""
