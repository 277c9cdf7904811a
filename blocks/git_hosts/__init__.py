"""Git hosts: one file each."""
