"""Requests as a report."""
