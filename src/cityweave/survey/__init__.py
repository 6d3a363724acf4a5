"""City-wide facts in one small file: what the sources are, how high the ground is, how bright the views are."""
