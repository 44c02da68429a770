"""Keys and rules as processes keep them in memory, and how they hear of changes."""
