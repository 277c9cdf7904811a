"""The operating system: processes, files, sockets, TLS, redaction of secrets, HTTP."""
