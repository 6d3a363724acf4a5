"""Rendering: the z-buffer every stage shares, and its plain twin."""
