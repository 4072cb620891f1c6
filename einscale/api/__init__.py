"""The public facade: one module for each question, each answered by a result that explains and proves itself.

Nothing is imported here, so that asking one question does not load what another needs.
"""
