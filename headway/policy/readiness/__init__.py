"""Is it ready for production? What can be verified is verified, the rest is attested by name, and expires."""
