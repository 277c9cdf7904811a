"""headway.yaml: settings of an app's checks, build and environments.

One source: these models validate the file, print the JSON Schema for editors and, through
`headway.cli.reference_docs`, the reference page. Durations are seconds, memory is bytes, cpu is cores, percentages are
0 to 100 throughout.
"""

from __future__ import annotations

from headway.config.analysis import Analysis, CanaryAnalysis, Metric, Synthetic
from headway.config.env_schema import Variable
from headway.config.environment import Approval, Environment, Instances
from headway.config.http_request import HttpRequest
from headway.config.loader import load, schema
from headway.config.sections import Build, Check, Health, Inputs, Lint, Migrations, On, Resources, SecretScan
from headway.config.settings import FILE_NAME, PREVIEW, Settings
from headway.config.stored_settings import StoredSettings
from headway.config.strategy import BlueGreen, Canary, CanaryStep, Recreate, Rolling, Strategy

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
    "HttpRequest",
    "Inputs",
    "Instances",
    "Lint",
    "Metric",
    "Migrations",
    "On",
    "Recreate",
    "Resources",
    "Rolling",
    "SecretScan",
    "Settings",
    "StoredSettings",
    "Strategy",
    "Synthetic",
    "Variable",
    "load",
    "schema",
]
