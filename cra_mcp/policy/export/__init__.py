"""Policies in the languages of other engines: the same decisions, or a refusal that says why not."""
