"""adaptd's runtime: loads policies, adapts them online, serves actions over ZeroMQ."""
