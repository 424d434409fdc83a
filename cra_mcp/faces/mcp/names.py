"""Names of this server's own things on the wire."""

RECEIPT_META = "dev.cra/receipt"
NEXT_META = "dev.cra/next"

JSON = "application/json"
TRACE_JSONL = "application/vnd.cra.trace+jsonl"
TRACE_JSON = "application/vnd.cra.trace+json"
ATLAS_JSON = "application/vnd.cra.atlas+json"
CARP_JSON = "application/vnd.cra.carp+json"
