"""headway.yaml: what a repository says about its checks, its build and its environments.

One source: these models validate the file, print the JSON Schema for editors and, through
`headway.cli.reference_docs`, the reference page. Durations are seconds, memory is bytes, cpu is cores, percentages are
0 to 100 throughout.
"""

from __future__ import annotations

from headway.config.env_schema import Variable
from headway.config.loader import load, schema
from headway.config.sections import (
    Approval,
    Build,
    Check,
    Environment,
    Health,
    Inputs,
    Instances,
    Leaks,
    Lint,
    Migrations,
    On,
    Resources,
)
from headway.config.settings import FILE_NAME, PREVIEW, Settings
from headway.config.strategy import (
    Analysis,
    BlueGreen,
    Canary,
    CanaryAnalysis,
    CanaryStep,
    Metric,
    Probe,
    Recreate,
    Rolling,
    Strategy,
    Synthetic,
)

__all__ = [
    "FILE_NAME",
    "PREVIEW",
    "Analysis",
    "Approval",
    "BlueGreen",
    "Build",
    "Canary",
    "CanaryAnalysis",
    "CanaryStep",
    "Check",
    "Environment",
    "Health",
    "Inputs",
    "Instances",
    "Leaks",
    "Lint",
    "Metric",
    "Migrations",
    "On",
    "Probe",
    "Recreate",
    "Resources",
    "Rolling",
    "Settings",
    "Strategy",
    "Synthetic",
    "Variable",
    "load",
    "schema",
]
