"""Traces decided again: as they were, or as other policies would have it; and what differs between two of them.

Rule: pure over recorded events and loaded atlases; the clock is the trace's own. Source: specs/trace.md, "Replay".
"""
