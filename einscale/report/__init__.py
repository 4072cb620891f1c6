"""Results for people and files: one table model, several renderers (terminal, plain text, Markdown, CSV, JSON).

Modules here only read results. `console` alone imports rich, and only where the output is a terminal.
"""
