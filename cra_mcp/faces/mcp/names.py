"""Names of this server's own things on the wire."""

RECEIPT_META = "dev.cra/receipt"
NEXT_META = "dev.cra/next"
SESSION_META = "dev.cra/session"
"""In a result: the session it began. In a request of the 2026 era over HTTP: the session it belongs to."""

JSON = "application/json"
TRACE_JSONL = "application/vnd.cra.trace+jsonl"
TRACE_JSON = "application/vnd.cra.trace+json"
ATLAS_JSON = "application/vnd.cra.atlas+json"
CARP_JSON = "application/vnd.cra.carp+json"
MARKDOWN = "text/markdown"
