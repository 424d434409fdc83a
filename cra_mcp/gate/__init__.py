"""The enforcement point: find, validate, decide, approve, record, execute, record.

Rule: there is one road to a back end, and it is in here.
"""
