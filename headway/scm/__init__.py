"""Source control: git, repository URLs, webhook payloads, REST clients of git hosts."""
