"""TRACE/1.0: hash-chained events, the stores that keep them, and their verification."""
