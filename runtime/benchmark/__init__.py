"""`adaptd bench`: speed on this machine, beside the least that serving can cost."""
