"""Plans: one sharded einsum, or a program under a strategy."""
