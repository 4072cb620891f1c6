"""Reports as text, on a terminal, as CSV, markdown, JSON rows and HTML."""
