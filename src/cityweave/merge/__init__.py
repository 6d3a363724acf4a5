"""Merge: the city's products from the tiles' products, one tile in memory at a time."""
