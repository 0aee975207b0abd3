"""From frames to figures, tables and claims. Never imports torch."""
