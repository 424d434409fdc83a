"""State that several processes of one person share, in one small SQLite database."""
