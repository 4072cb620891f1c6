"""Plans of one einsum as a report."""
