"""`adaptd exporter`: Prometheus metrics of a daemon, a process of its own on the tap.

ledger      adds up what `status` and the tap tell; no sockets, no HTTP
histogram   counts of durations by bucket
belief      how wide a belief is
metrics     the ledger as Prometheus metrics; docs/monitoring.md lists them
"""
