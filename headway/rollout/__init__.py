"""Plan and execute a rollout: strategies, executor, analysis, smoke tests."""
