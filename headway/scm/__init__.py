"""Source control: git, repository URLs, webhook payloads, REST clients of git hosts."""

__all__ = ["branch_head", "git", "repository_url", "rest_client", "webhooks"]
