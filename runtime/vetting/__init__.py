"""Bundles are taken for hostile: what is looked at before the daemon touches one's files."""
