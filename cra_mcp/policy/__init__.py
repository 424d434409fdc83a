"""Policies of an atlas and the engine that decides by them. Pure: no clock, files or randomness."""
