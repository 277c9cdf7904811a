"""The operating system: processes, files, sockets, TLS, redaction of secrets, HTTP."""

__all__ = [
    "atomic_files",
    "command_runner",
    "directories",
    "extensions",
    "http_client",
    "instance_health",
    "launcher",
    "machine_limits",
    "output_log",
    "paths",
    "ports_in_use",
    "project_root",
    "redaction",
    "retry_policy",
    "runners",
    "supervisor",
    "tls",
    "unix_socket",
    "untrusted_files",
]
