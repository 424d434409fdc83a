"""Who is calling: credentials become a principal, and roles say what it may do."""
