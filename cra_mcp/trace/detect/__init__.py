"""Secrets and personal data found in texts and values, and what stands in their place."""
