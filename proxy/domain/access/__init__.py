"""Who may do what: principals, their rights, and the organisations, teams and keys that these come from."""
