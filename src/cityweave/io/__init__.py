"""Readers and writers of the formats that others made."""
