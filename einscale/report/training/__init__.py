"""A training step as a report."""
