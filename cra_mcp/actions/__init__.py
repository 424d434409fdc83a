"""What an action's own function is given, and what it can return: for those who write actions.

Rule: knows nothing of how calls are governed or carried out.
"""
