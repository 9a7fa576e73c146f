"""System checks: wrong combinations of settings are said at start, with what to do."""
