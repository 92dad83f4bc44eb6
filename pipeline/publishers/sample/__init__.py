"""Synthetic months: files of any dataset, era and size that look like TLC's and hold nobody's trips."""
