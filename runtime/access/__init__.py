"""Who may do what over tcp: keys, an allow-list, roles and limits (docs/keys.md)."""
