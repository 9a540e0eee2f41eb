"""Signed bundles: who made one, and in which order (extra ``sign``; docs/signing.md)."""
