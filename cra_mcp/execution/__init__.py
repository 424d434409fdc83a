"""Back ends: what carries out an action once the gate has approved it."""
