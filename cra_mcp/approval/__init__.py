"""Pending approvals: who may grant them, once, for exactly one call."""
