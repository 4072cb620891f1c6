"""Strategies side by side as a report."""
