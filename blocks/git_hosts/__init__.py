"""Git hosts: one module each. Each passes tests/contracts/test_git_host.py."""

__all__ = ["bitbucket", "gitea", "github", "gitlab"]
