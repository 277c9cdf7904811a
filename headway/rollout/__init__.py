"""Plan and execute a rollout: strategies, executor, analysis, smoke tests."""

__all__ = [
    "analysis",
    "context",
    "executor",
    "load_generator",
    "markdown",
    "monitor",
    "operator_commands",
    "own_requests",
    "planning",
    "request_counter",
    "smoke_tests",
    "step_titles",
    "steps",
    "strategies",
]
