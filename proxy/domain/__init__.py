"""Values, rules and decisions: pure, synchronous, standard library only."""
