"""Data sets: what a training step draws, what a metric compares with, and, where known, the exact fields."""
