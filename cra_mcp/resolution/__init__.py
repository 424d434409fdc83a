"""CARP resolve: what a requester may know and do for a goal.

Rule: deciding is pure. An undisclosed action is left out as if it did not exist; the payload for the trace knows it.
Source: specs/carp.md, "Resolution".
"""
