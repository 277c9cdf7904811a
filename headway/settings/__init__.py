"""headway.yaml: what a repository says about its checks, its build and its environments.

One source: these models validate the file, print the JSON Schema for editors and, through `headway.reference`, the
reference page. Durations are seconds, memory is bytes, cpu is cores, percentages are 0 to 100 throughout.
"""

from __future__ import annotations

from headway.settings.file import load, schema
from headway.settings.repository import FILE_NAME, PREVIEW, Settings
from headway.settings.sections import (
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
from headway.settings.strategies import (
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
from headway.settings.variables import Variable

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
