"""Atlas/1.0: a versioned package of actions, policies and context."""
