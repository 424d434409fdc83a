"""Thin faces over the runtime: they translate and never decide."""
