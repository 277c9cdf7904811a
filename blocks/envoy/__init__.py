"""Traffic -> configuration of the proxy that puts it in force, and the proxy's figures -> counts."""
