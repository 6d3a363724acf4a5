"""Figures: how far the products are from the truth, what is missing, and what it cost."""
