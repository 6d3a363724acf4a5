"""Geometry: the Z-monotonic field fitted to a height model, and the surface and solid taken from it."""
