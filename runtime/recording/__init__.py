"""Sessions on disk as MCAP: written from the tap, repaired, read, replayed, converted."""
