"""Traces in the forms other systems take in."""
