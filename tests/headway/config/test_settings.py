# ruff: noqa: E501 - the tables of faults read best with one fault a line
from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from headway import config
from headway.cli import reference_docs
from headway.config import Canary, CanaryStep, Rolling, Settings
from headway.config.base import Section
from headway.config.value_parsers import format_duration, parse_duration
from headway.config.yaml_document import Document
from headway.domain.errors import NotFound, SettingsError
from headway.domain.plan import Condition
from headway.domain.refusal import Refusal
from headway.domain.revision import Artifact, Autoscale, Http, LaunchSpec, SecretRef

SHOP = """\
app: shop
branch: main
checks:                                   # run side by side unless `needs` says otherwise
  lint: npm run lint
  typecheck: npm run typecheck
  unit: {run: npm test -- --coverage, reports: junit.xml, coverage: coverage/lcov.info, retries: 1, timeout: 10m}
  integration: {run: npm run test:integration, needs: [unit]}
build: {image: ghcr.io/acme/shop, dockerfile: Dockerfile}   # or, without Docker: {install: npm ci --omit=dev}
run: node dist/server.js                  # $PORT is given
health: {path: /health, detailed: /health/detailed, startup: 150s}
env:                                      # the contract: checked before anything is deployed, all faults at once
  PORT: {type: integer, default: 3000}
  DATABASE_URL: {type: url, secret: true}
  JWT_SECRET: {type: string, min_length: 32, secret: true}
  LOG_LEVEL: {choices: [debug, info, warn, error], default: info}
resources: {cpu: 500m, memory: 256Mi}
migrations: {apply: npx prisma migrate deploy, revert: ..., check: ...}
environments:
  preview: {target: docker/preview, ttl: 72h}
  staging:
    {target: docker/staging, strategy: rolling, instances: 2, smoke: [{get: /health, expect: 200, version: true}]}
  production:
    target: kubernetes/prod
    instances: 4
    strategy:
      canary:
        steps: [5%, 50%, 100%]            # or {weight: 5, pause: 10m}
        analysis: {success_rate: ">= 99", p99: "<= 500ms", false_rollback: 1%}
    approval: {by: [release-owners], expires: 24h, not_author: true}
    freeze: ["Fri 16:00 - Mon 08:00 Europe/Berlin"]
    env: {LOG_LEVEL: info, DATABASE_URL: !secret shop-prod/database-url}
"""

ARTIFACT = Artifact(digest="sha256:" + "0" * 64, location="/bundle", size=1)


def load(directory: Path, text: str | bytes) -> Settings:
    (directory / "headway.yaml").write_bytes(text.encode() if isinstance(text, str) else text)
    return config.load(directory)


def faults(directory: Path, text: str | bytes) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(directory, text)
    assert caught.value.hint
    return caught.value.what.splitlines()


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    return load(tmp_path, SHOP)


# --- what is read ----------------------------------------------------------------------------------------------


def test_complete_example_is_loaded_with_the_right_values(shop: Settings) -> None:
    production = shop.environments["production"]
    assert shop.checks["lint"].run == "npm run lint"
    assert shop.checks["integration"].needs == ("unit",)
    assert shop.checks["unit"].timeout == 600.0
    assert (shop.resources.cpu, shop.resources.memory) == (0.5, 256 * 2**20)
    assert shop.environments["preview"].ttl == 72 * 3600
    assert shop.environments["staging"].strategy == Rolling()
    assert shop.environments["staging"].smoke[0].method == "GET"
    assert shop.environments["staging"].smoke[0].path == "/health"
    assert shop.environments["staging"].approval is None
    assert isinstance(production.strategy, Canary)
    assert [step.weight for step in production.strategy.steps] == [5, 50, 100]
    assert production.strategy.analysis is not None
    assert production.strategy.analysis.false_rollback == 1.0
    assert production.strategy.analysis.conditions == (
        Condition(metric="success_rate", op=">=", limit=99.0),
        Condition(metric="p99", op="<=", limit=0.5),
    )
    assert production.approval is not None
    assert production.approval.by == ("release-owners",)
    assert production.approval.expires == 86400.0


def test_path_of_the_file_itself_is_accepted(tmp_path: Path, shop: Settings) -> None:
    assert config.load(tmp_path / "headway.yaml") == shop


def test_settings_survive_json_and_pickle(shop: Settings) -> None:
    assert Settings.model_validate_json(shop.model_dump_json()) == shop
    assert Settings.model_validate(shop.model_dump()) == shop
    assert pickle.loads(pickle.dumps(shop)) == shop


ENVIRONMENT = "app: a\nrun: x\nenvironments:\n  staging:\n    target: process/a\n    "

SHORT_FORMS = [
    ("strategy: rolling", "strategy: {rolling: {}}"),
    ("strategy: canary", "strategy: {canary: {steps: [5%, 50%, 100%]}}"),
    ("strategy: {canary: {steps: [100%]}}", "strategy: {canary: {steps: [100]}}"),
    ("strategy: {canary: {steps: [5%, 100]}}", "strategy: {canary: {steps: [{weight: 5}, {weight: 100%, pause: 0}]}}"),
    ("strategy: rolling", "strategy: {rolling: {max_surge: 1, max_unavailable: 0}}"),
    ("instances: 1", "strategy: rolling"),
    ("instances: 3", "instances: {min: 3, max: 3}"),
    ("approval: true", "approval: {}"),
    ("approval: false", "instances: 1"),
    ("drain: 90", "drain: 1m30s"),
    ("drain: 0.5", "drain: 500ms"),
    ("env: {A: !secret shop/a}", "env: {A: {secret: shop/a}}"),
    ("env: {A: 1.10}", 'env: {A: "1.10"}'),
    ("env: {A: 007}", 'env: {A: "007"}'),
    ("env: {A: True}", 'env: {A: "true"}'),
    ("env: {A: 2024-01-01}", 'env: {A: "2024-01-01"}'),
    ("env: {A: yes}", 'env: {A: "yes"}'),
    ("smoke: [{get: /, headers: {X-Count: 007}}]", 'smoke: [{get: /, headers: {X-Count: "007"}}]'),
]


@pytest.mark.parametrize(("short", "long"), SHORT_FORMS)
def test_short_and_long_forms_mean_the_same(tmp_path: Path, short: str, long: str) -> None:
    assert load(tmp_path, ENVIRONMENT + short) == load(tmp_path, ENVIRONMENT + long)


@pytest.mark.parametrize(
    ("strategy", "instances", "surge", "unavailable"),
    [
        (Rolling(), 4, 1, 0),
        (Rolling(max_surge="25%"), 5, 2, 0),
        (Rolling(max_surge=0, max_unavailable="25%"), 5, 0, 1),
        (Rolling(max_surge=0, max_unavailable="25%"), 2, 0, 0),
        (Rolling(max_surge="100%", max_unavailable="100%"), 3, 3, 3),
    ],
)
def test_a_surge_is_rounded_up_and_missing_instances_down(
    strategy: Rolling, instances: int, surge: int, unavailable: int
) -> None:
    assert (strategy.surge(instances), strategy.unavailable(instances)) == (surge, unavailable)


def test_json_of_a_probe_may_hold_null_and_is_plain_json(tmp_path: Path) -> None:
    probe = load(tmp_path, ENVIRONMENT + "smoke: [{post: /, json: {a: [1, 1.5, null]}, expect_json: {b: null}}]")
    sent = probe.environments["staging"].smoke[0]
    assert json.dumps(sent.json_body) == '{"a": [1, 1.5, null]}'
    assert sent.expect_json == {"b": None}


def test_alias_has_the_value_of_its_anchor(tmp_path: Path) -> None:
    read = load(tmp_path, "app: a\nchecks:\n  a: {run: x, env: &env {A: 1}}\n  b: {run: x, env: *env}")
    assert read.checks["b"].env == {"A": "1"}


def test_checks_alone_need_neither_run_nor_environments(tmp_path: Path) -> None:
    read = load(tmp_path, "app: a\nchecks: {lint: x}")
    assert read.release_path() == []


def test_run_is_optional_on_platforms_with_a_start_command(tmp_path: Path) -> None:
    found = load(tmp_path, "app: a\nenvironments:\n  staging: {target: vercel/a}\n  production: {target: railway/a}")
    assert found.run is None


# --- durations -------------------------------------------------------------------------------------------------


@given(st.floats(min_value=0, max_value=999_999_999))
def test_a_duration_reads_back_as_it_was_written(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("24h", 86400),
        ("150s", 150),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1.5s", 1.5),
        ("1h1m1s1ms", 3661.001),
    ],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (0.5, "500ms"), (90.0, "1m30s"), (86400.0, "24h"), (100, "1m40s")]
)
def test_durations_are_written_the_usual_way(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize("text", ["", "10", "m", "10 m", "-1s", "30m1h", "1d", "1s1s", "10m\n", "1e3s", "٣s"])
def test_other_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        parse_duration(text)


# --- what is refused -------------------------------------------------------------------------------------------

DURATION = "expected a duration such as 10m, 1h30m, 150s or 500ms"
LABEL = "expected a name of lower-case letters, digits and '-' such as shop-api"
IMAGE = "expected an image repository without a tag such as ghcr.io/acme/shop (what is built is named by its digest)"
METHODS = "get, post, put, patch, delete, head"

TOP_FAULTS = [
    ("branch: main", "1: app: is missing"),
    ("app: Shop", f"1: app: {LABEL}, got 'Shop'"),
    ("app: 5", "1: app: expected text, got 5"),
    ("app: !secret a/b", "1: app: a secret cannot be used here"),
    ("app: a\nbrnch: x", "2: brnch: unknown key 'brnch' (did you mean 'branch'?)"),
    ("app: a\nbranch: -x", "2: branch: expected the name of a branch, got '-x'"),
    ("app: a\nbranch:", "2: branch: has no value: give it one or remove the key"),
    ("app: a\n? [x]\n: y", "1: has a key in line 2 that is not text"),
    ("app: a\napp: b", "1: app: is written twice, again in line 2"),
    ("app: a\nrun: !cmd x", "2: run: unknown tag !cmd: there is only !secret, before the name of a secret"),
    ("app: a\nrun: !!python/name:os.system x", "2: run: unknown tag python/name:os.system: there is only !secret, before the name of a secret"),
    ("app: a\nhealth: !x {path: /}", "2: health: unknown tag !x: there is only !secret, before the name of a secret"),
    ("app: a\nrun: ' '", "2: run: expected a command, got ' '"),
    ("just text", "1: expected a mapping, got 'just text'"),
    ("- app", "1: expected a mapping, got a list"),
    ("", "1: is empty"),
    ("# nothing yet\n", "1: is empty"),
    ("app: a\nchecks: [x]", "2: checks: expected a mapping, got a list"),
    ("app: a\nchecks: {unit: 5}", "2: checks/unit: expected a command or a mapping, got 5"),
    ("app: a\nchecks: {unit: ''}", "2: checks/unit/run: expected a command, got ''"),
    ("app: a\nchecks:\n  unit: {needs: [unit]}", "3: checks/unit/run: is missing"),
    ("app: a\nchecks:\n  a b: x", "3: checks/a b: expected a name of letters, digits, '.', '_' and '-', got 'a b'"),
    ("app: a\nchecks:\n  unit: {run: x, retires: 1}", "3: checks/unit/retires: unknown key 'retires' (did you mean 'retries'?)"),
    ("app: a\nchecks:\n  unit: {run: x, retries: two}", "3: checks/unit/retries: expected an integer, got 'two'"),
    ("app: a\nchecks:\n  unit: {run: x, retries: '2'}", "3: checks/unit/retries: expected an integer, got '2'"),
    ("app: a\nchecks:\n  unit: {run: x, retries: 1.5}", "3: checks/unit/retries: expected an integer, got 1.5"),
    ("app: a\nchecks:\n  unit: {run: x, retries: true}", "3: checks/unit/retries: expected an integer, got true"),
    ("app: a\nchecks:\n  unit: {run: x, retries: -1}", "3: checks/unit/retries: expected at least 0, got -1"),
    ("app: a\nchecks:\n  unit: {run: x, network: closed}", "3: checks/unit/network: expected open, none or a list of host names such as [pypi.org], got 'closed'"),
    ("app: a\nchecks:\n  unit: {run: x, network: [pypi.org:443]}", "3: checks/unit/network: expected open, none or a list of host names such as [pypi.org], got a list"),
    ("app: a\nchecks:\n  unit: {run: x, retries: 99}", "3: checks/unit/retries: expected at most 10, got 99"),
    ("app: a\nchecks:\n  unit:\n    run: x\n    timeout: soon", f"5: checks/unit/timeout: {DURATION}, got 'soon'"),
    ("app: a\nchecks:\n  unit: {run: x, timeout: 0}", "3: checks/unit/timeout: expected a duration above zero (nothing waits for ever), got 0"),
    ("app: a\nchecks:\n  unit: {run: x, timeout: .inf}", "3: checks/unit/timeout: expected a duration such as 10m, from 0 to 30 years, got .inf"),
    ("app: a\nchecks:\n  unit: {run: x, timeout: true}", "3: checks/unit/timeout: expected a duration such as 10m, from 0 to 30 years, got true"),
    (f"app: a\nchecks:\n  unit: {{run: x, timeout: {'9' * 400}}}", f"3: checks/unit/timeout: expected a duration such as 10m, from 0 to 30 years, got {'9' * 57}..."),
    (f"app: a\nchecks:\n  unit: {{run: x, retries: {'9' * 5000}}}", "3: checks/unit/retries: is not a number that can be read"),
    ("app: a\nchecks:\n  unit: {run: x, needs: lint}", "3: checks/unit/needs: expected a list, got 'lint'"),
    ("app: a\nchecks:\n  lint: x\n  unit: {run: x, needs: [lnt]}", "4: checks/unit/needs/0: no check 'lnt' (did you mean 'lint'?)"),
    ("app: a\nchecks:\n  lint: x\n  unit: {run: x, needs: [zzz]}", "4: checks/unit/needs/0: no check 'zzz' (there is lint)"),
    ("app: a\nchecks:\n  a: {run: x, needs: [a]}", "3: checks/a/needs: goes round in a circle: a needs a"),
    ("app: a\nchecks:\n  unit: {run: x, reports: /etc/passwd}", "3: checks/unit/reports: expected a path inside the repository, got '/etc/passwd'"),
    ("app: a\nchecks:\n  unit: {run: x, coverage: a/../../b}", "3: checks/unit/coverage: expected a path inside the repository, got 'a/../../b'"),
    ("app: a\nchecks:\n  unit: {run: x, inputs: {paths: []}}", "3: checks/unit/inputs/paths: must not be empty"),
    ("app: a\nchecks:\n  unit: {run: x, inputs: {tools: [x]}}", "3: checks/unit/inputs/paths: is missing"),
    ("app: a\nchecks:\n  unit: {run: x, env: {A: [hunter2]}}", "3: checks/unit/env/A: expected text, got a list"),
    ("app: a\nchecks:\n  unit: {run: x, env: {A: !secret a/b}}", "3: checks/unit/env/A: a secret cannot be used here"),
    ("app: a\nchecks:\n  unit: {run: x, env: {A-B: x}}", "3: checks/unit/env/A-B: expected the name of a variable: letters, digits and '_'"),
    ("app: a\nbuild: {install: x, image: y}", "2: build: has both install (a bundle) and image (a container): choose one"),
    ("app: a\nbuild: {dockerfile: Dockerfile}", "2: build: has dockerfile but no image to push anywhere"),
    ("app: a\nbuild: {image: y, env: {A: b}}", "2: build: has an env but no install that would see it"),
    ("app: a\nbuild: {image: 'ghcr.io/acme/shop:1'}", f"2: build/image: {IMAGE}, got 'ghcr.io/acme/shop:1'"),
    ("app: a\nbuild: {image: 'shop:1'}", f"2: build/image: {IMAGE}, got 'shop:1'"),
    ("app: a\nhealth: {path: health}", "2: health/path: expected a URL path such as /health, got 'health'"),
    ("app: a\nhealth: /health", "2: health: expected a mapping, got '/health'"),
    ("app: a\nhealth: !secret a/b", "2: health: a secret cannot be used here"),
    ("app: a\nresources: {cpu: lots}", "2: resources/cpu: expected processor cores such as 500m, 0.5 or 2, got 'lots'"),
    ("app: a\nresources: {cpu: 0}", "2: resources/cpu: expected processor cores such as 500m, 0.5 or 2, got 0"),
    ("app: a\nresources: {memory: 256MB}", "2: resources/memory: expected a size such as 256Mi or 1Gi, got '256MB'"),
    ("app: a\nmigrations: {revert: x}", "2: migrations/apply: is missing"),
    ("app: a\nenv: {A: {type: integr}}", "2: env/A/type: expected 'string', 'integer', 'number', 'boolean', 'url', 'email', 'duration', 'bytes', 'json', 'enum' or 'regex' (did you mean 'integer'?)"),
    ("app: a\nenv: {A: {secret: hunter2}}", "2: env/A/secret: expected true or false"),
    ("app: a\nenv: {A: {secret: true, default: hunter2}}", "2: env/A/default: a secret has no default: it would be written here in clear"),
    ("app: a\nenv: {A: {secret: true, choices: [hunter2], type: url}}", "2: env/A/choices/0: expected a URL"),
    ("app: a\nenv: {A: {type: integer, default: x}}", "2: env/A/default: expected an integer, got 'x'"),
    ("app: a\nenv: {A: {choices: [x, y], default: z}}", "2: env/A/default: expected one of x, y, got 'z'"),
    ("app: a\nenv: {A: {min_length: 3, default: ab}}", "2: env/A/default: expected at least 3 characters, got 2"),
    ("app: a\nenv: {A: {requierd: false}}", "2: env/A/requierd: unknown key 'requierd' (did you mean 'required'?)"),
    ("app: a\nenvironments:\n  staging: {target: process/a}", "2: environments: need `run`, the command that starts the app"),
    ("app: a\nrun: x\nenvironments:\n  staging: {target: docker/a}", "4: environments/staging/target: docker runs images: build one with build/image, or choose another target"),
    ("app: a\nrun: x\nenvironments:\n  staging: {target: process/a, instances: {min: 1, max: 2}}", "4: environments/staging/instances: process has no autoscaler: say one number, or choose a kubernetes target"),
    ("app: a\nrun: x\nenvironments:\n  staging: {target: process/a, instances: {min: 3, max: 2}}", "4: environments/staging/instances: max is 2, less than min, 3"),
    ("app: a\nrun: x\nenvironments:\n  staging: {target: process/a, instances: {min: 3}}", "4: environments/staging/instances/max: is missing"),
    ("app: a\nbuild: {image: b/c}\nenvironments:\n  staging: {target: process/a}", "4: environments/staging/target: process runs bundles, and build/image makes an image: choose another target"),
    ("app: a\nbuild: {image: b/c}\nenvironments:\n  staging: {target: vercel/a}", "4: environments/staging/target: vercel runs bundles, and build/image makes an image: choose another target"),
    ("app: a\nenvironments:\n  staging: {target: vercel/a}\n  production: {target: process/a}", "2: environments: need `run`, the command that starts the app"),
    ("app: a\nbuild: {image: b/c, secrets: {A: hunter2}}", "2: build/secrets/A: expected the name of a secret such as !secret shop-prod/database-url"),
    ("app: a\nbuild: {registry: here, args: {A: b}}", "2: build: has registry and args but no image to push anywhere"),
    ("app: a\nrun: x\nenvironments:\n  Prod: {target: process/a}", f"4: environments/Prod: {LABEL}, got 'Prod'"),
    ("app: a\nrun: x\nenvironments:\n  prod: {}", "4: environments/prod/target: is missing"),
    (
        "app: a\nrun: x\nenvironments:\n  one: {target: process/a}\n  two: {target: process/a, port: 80}",
        "5: environments/two/target: process/a is one's already: each environment needs its own",
    ),
]  # fmt: skip

CONDITION = 'expected a condition such as ">= 99"'
ANALYSIS = "environments/staging/strategy/rolling/analysis"
CANARY = "environments/staging/strategy/canary"

# Each is the text of line 6, in environments/staging.
ENVIRONMENT_FAULTS = [
    ("instances: two", "environments/staging/instances: expected a number from 1 to 1000, or a range such as {min: 2, max: 10, cpu: 70%}, got 'two'"),
    ("instances: 0", "environments/staging/instances: expected a number from 1 to 1000, or a range such as {min: 2, max: 10, cpu: 70%}, got 0"),
    ("port: 70000", "environments/staging/port: expected at most 65535, got 70000"),
    ("instnaces: 2", "environments/staging/instnaces: unknown key 'instnaces' (did you mean 'instances'?)"),
    ("ttl: 3h", "environments/staging/ttl: only preview ends by itself"),
    ("approval: 'yes'", "environments/staging/approval: expected true, false or a mapping, got 'yes'"),
    ("approval: {by: anna}", "environments/staging/approval/by: expected a list, got 'anna'"),
    ("approval: {expires: 0s}", "environments/staging/approval/expires: expected a duration above zero (nothing waits for ever), got '0s'"),
    ("approval: {not_autor: true}", "environments/staging/approval/not_autor: unknown key 'not_autor' (did you mean 'not_author'?)"),
    ("freeze: [Friday]", "environments/staging/freeze/0: expected a window such as 'Fri 16:00 - Mon 08:00 Europe/Berlin', '2026-12-19 12:00 - 2027-01-04 08:00 Europe/Berlin' or 'holidays DE-BW Europe/Berlin', got 'Friday'"),
    ("strategy: roling", "environments/staging/strategy: unknown strategy 'roling' (did you mean 'rolling'?)"),
    ("strategy: blue-green", "environments/staging/strategy: unknown strategy 'blue-green' (did you mean 'blue_green'?)"),
    ("strategy: {rolling: {}, canary: {}}", "environments/staging/strategy: expected one strategy: recreate, rolling, blue_green, canary, got a mapping"),
    ("strategy: {rolling: fast}", "environments/staging/strategy/rolling: expected a mapping"),
    ("strategy: {rolling: {kind: canary}}", "environments/staging/strategy/rolling/kind: unknown key 'kind'"),
    ("strategy: {rolling: {surge: 1}}", "environments/staging/strategy/rolling/surge: unknown key 'surge' (did you mean 'max_surge'?)"),
    ("strategy: {recreate: {max_surge: 1}}", "environments/staging/strategy/recreate/max_surge: unknown key 'max_surge'"),
    ("strategy: {rolling: {max_surge: 0}}", "environments/staging/strategy/rolling: max_surge and max_unavailable are both 0: no instance could ever be replaced"),
    ("strategy: {rolling: {max_surge: 0%, max_unavailable: 0}}", "environments/staging/strategy/rolling: max_surge and max_unavailable are both 0: no instance could ever be replaced"),
    ("strategy: {rolling: {max_surge: -1}}", "environments/staging/strategy/rolling/max_surge: expected a number of instances or a percentage such as 25%, got -1"),
    ("strategy: {rolling: {analysis: {window: 5s}}}", f"{ANALYSIS}: needs at least one of success_rate, p50, p99, metrics: an analysis of nothing would always pass"),
    ("strategy: {rolling: {analysis: {success_rate: 99}}}", f"{ANALYSIS}/success_rate: {CONDITION}, in quotes, got 99"),
    ("strategy: {rolling: {analysis: {success_rate: '<= 99'}}}", f"{ANALYSIS}/success_rate: {CONDITION} (higher is better), got '<= 99'"),
    ("strategy: {rolling: {analysis: {success_rate: '>= 101'}}}", f"{ANALYSIS}/success_rate: expected a percentage such as 5%, got '>= 101'"),
    ("strategy: {rolling: {analysis: {p99: '<= fast'}}}", f"{ANALYSIS}/p99: {DURATION}, got '<= fast'"),
    ("strategy: {rolling: {analysis: {p99: '<= 1s', false_rollback: 1%}}}", f"{ANALYSIS}/false_rollback: unknown key 'false_rollback' (there is metrics, min_requests, p50, p99, success_rate, synthetic, window)"),
    ("strategy: {canary: {steps: []}}", f"{CANARY}/steps: must not be empty"),
    ("strategy: {canary: {steps: [50%, 5%, 100%]}}", f"{CANARY}/steps: the weights have to rise and end with 100%: 50%, 5%, 100%"),
    ("strategy: {canary: {steps: [5%]}}", f"{CANARY}/steps: the weights have to rise and end with 100%: 5%"),
    ("strategy: {canary: {steps: [0.5%, 100%]}}", f"{CANARY}/steps/0/weight: expected a whole percentage from 1% to 100%, got '0.5%'"),
    ("strategy: {canary: {analysis: {ignore_below: 1%}}}", f"{CANARY}/analysis: needs at least one of success_rate, p50, p99, metrics, false_rollback: an analysis of nothing would always pass"),
    ("strategy: {canary: {analysis: {false_rollback: 0%}}}", f"{CANARY}/analysis/false_rollback: Input should be greater than 0"),
    ("strategy: {canary: {analysis: {false_rollback: 1%, ignore_below: 100%}}}", f"{CANARY}/analysis/ignore_below: Input should be less than 100"),
    ("strategy: {canary: {analysis: {p99: '<= 1s', false_rollback: 101%}}}", f"{CANARY}/analysis/false_rollback: expected a percentage such as 5%, got '101%'"),
    ("strategy: {canary: {steps: [{weight: 5%, pause: ever}, 100%]}}", f"{CANARY}/steps/0/pause: expected a duration such as 10m, or forever, got 'ever'"),
    ("strategy: {canary: {steps: [{weight: 5%, judged: no one}, 100%]}}", f"{CANARY}/steps/0/judged: expected true or false, got 'no one'"),
    ("strategy: {canary: {steps: [{weight: 5%, analysis: {window: 3s}}, 100%]}}", f"{CANARY}/steps/0/analysis: needs at least one of success_rate, p50, p99, metrics, false_rollback: an analysis of nothing would always pass"),
    ("strategy: {canary: {steps: [{weight: 5%, header: {x beta: a}}, 100%]}}", f"{CANARY}/steps/0/header/x beta: expected the name of a header such as x-beta, got 'x beta'"),
    ("strategy: {canary: {steps: [5%, {weight: 100%, header: {x-beta: a}}]}}", f"{CANARY}/steps: the last step has a header, but everybody gets the new version there: give an earlier one"),
    ("strategy: {canary: {steps: [100%], sticky: true, rehearse: true}}", f"{CANARY}: sticky and rehearse would do nothing: needs a step below 100%"),
    ("strategy: {canary: {steps: [100%], analysis: {false_rollback: 1%}}}", f"{CANARY}: false_rollback would do nothing: needs a step below 100%"),
    ("strategy: {canary: {rehearse: 0s}}", f"{CANARY}/rehearse: expected a duration above zero (nothing waits for ever), got '0s'"),
    ("strategy: {blue_green: {pre_promotion: {p99: '<= 1s'}}}", "environments/staging/strategy/blue_green/pre_promotion: needs synthetic requests: users do not reach the preview route"),
    ("strategy: {blue_green: {preview_port: 0}}", "environments/staging/strategy/blue_green/preview_port: expected at least 1, got 0"),
    ("supersede: ignore", "environments/staging/supersede: expected 'queue' or 'abort', got 'ignore'"),
    ("after_deadline: pass", "environments/staging/after_deadline: expected 'rollback' or 'wait', got 'pass'"),
    ("strategy: {canary: {analysis: {metrics: {}}}}", f"{CANARY}/analysis/metrics: must not be empty"),
    ("strategy: {canary: {analysis: {metrics: {orders: {source: prometheus, query: x, limit: '>= 5'}}}}}", f"{CANARY}/analysis/metrics/orders/source: expected TYPE/NAME of a metric source such as prometheus/main, got 'prometheus'"),
    ("strategy: {canary: {analysis: {metrics: {orders: {source: prometheus/main, query: x$new, limit: '>= 5'}}}}}", f"{CANARY}/analysis/metrics/orders/query: unknown placeholder $new; there are: $revision, $stable, and $$ for a dollar"),
    ("strategy: {canary: {analysis: {metrics: {orders: {source: prometheus/main, query: x, limit: 5}}}}}", f"{CANARY}/analysis/metrics/orders/limit: expected a limit such as \">= 5\", in quotes, got 5"),
    ("strategy: {canary: {analysis: {success_rate: '>= 99', synthetic: {requests: []}}}}", f"{CANARY}/analysis/synthetic/requests: must not be empty"),
    ("smoke: [{expect: 200}]", f"environments/staging/smoke/0: needs exactly one of {METHODS}"),
    ("smoke: [{get: /a, post: /b}]", f"environments/staging/smoke/0: needs exactly one of {METHODS}"),
    ("smoke: [{gt: /a}]", "environments/staging/smoke/0/gt: unknown key 'gt' (did you mean 'get'?)"),
    ("smoke: [{post: /a, body: x, json: {}}]", "environments/staging/smoke/0: has both body and json: choose one"),
    ("smoke: [{get: /a, expect: 2000}]", "environments/staging/smoke/0/expect: expected at most 599, got 2000"),
    ("smoke: [{get: /a, expect_json: ok}]", "environments/staging/smoke/0/expect_json: expected a mapping, got 'ok'"),
    ("smoke: [{get: /a, version: 'on'}]", "environments/staging/smoke/0/version: expected true or false, got 'on'"),
    ("smoke: {get: /a}", "environments/staging/smoke: expected a list, got a mapping"),
    ("smoke: [null]", "environments/staging/smoke/0: has no value: give it one or remove the key"),
    ("env: {A: !secret }", "environments/staging/env/A: expected the name of a secret such as !secret shop-prod/database-url"),
    ("env: {A: !secret a/b/c}", "environments/staging/env/A: expected the name of a secret such as !secret shop-prod/database-url"),
    ("env: {A: {secrt: a}}", "environments/staging/env/A: expected the name of a secret such as !secret shop-prod/database-url, got a mapping"),
    ("env: {PORT: 80}", "environments/staging/env/PORT: is given by Headway and cannot be set"),
    ("env: {HEADWAY_APP: x}", "environments/staging/env/HEADWAY_APP: is given by Headway and cannot be set"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "fault"), TOP_FAULTS)
def test_error_has_file_line_and_message(tmp_path: Path, text: str, fault: str) -> None:
    assert faults(tmp_path, text) == [f"headway.yaml:{fault}"]


@pytest.mark.parametrize(("line", "fault"), ENVIRONMENT_FAULTS)
def test_error_in_an_environment_has_file_line_and_message(tmp_path: Path, line: str, fault: str) -> None:
    assert faults(tmp_path, ENVIRONMENT + line) == [f"headway.yaml:6: {fault}"]


def test_cycle_of_checks_is_named_in_dependency_order(tmp_path: Path) -> None:
    text = "app: a\nchecks:\n  a: {run: x, needs: [b]}\n  b: {run: x, needs: [c]}\n  c: {run: x, needs: [a]}\n"
    (fault,) = faults(tmp_path, text)
    circles = ["a needs b needs c needs a", "b needs c needs a needs b", "c needs a needs b needs c"]
    assert fault.rpartition(": ")[2] in circles


def test_all_errors_are_reported_together_in_file_order(tmp_path: Path) -> None:
    text = """\
app: shop
brnch: main
checks:
  unit: {run: pytest, needs: [lint], timeout: never}
health: {path: health}
environments:
  staging: {target: process, instances: two}
  staging: {target: process/b}
  production: {target: process/p, strategy: {rolling: {max_surge: 0}}, smoke: [{get: x, within: 0}]}
"""
    assert [fault.split(": ")[0:2] for fault in faults(tmp_path, text)] == [
        ["headway.yaml:2", "brnch"],
        ["headway.yaml:4", "checks/unit/timeout"],
        ["headway.yaml:5", "health/path"],
        ["headway.yaml:7", "environments/staging"],
        ["headway.yaml:7", "environments/staging/instances"],
        ["headway.yaml:7", "environments/staging/target"],
        ["headway.yaml:9", "environments/production/smoke/0/get"],
        ["headway.yaml:9", "environments/production/smoke/0/within"],
        ["headway.yaml:9", "environments/production/strategy/rolling"],
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("app: a\n  b: c\n", "headway.yaml:2:4: is not YAML: mapping values are not allowed here"),
        ("app: [a\n", "headway.yaml:2:1: is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("app: a\nrun: >= 1\n", "headway.yaml:2:7: is not YAML: expected chomping or indentation indicators, but found '='"),
        ("app: *nobody\n", "headway.yaml:1:6: is not YAML: found undefined alias 'nobody'"),
        ("app: a\n---\napp: b\n", "headway.yaml:2:1: is not YAML: but found another document"),
        ("app: a\x07\n", "headway.yaml: is not YAML: unacceptable character #x0007: special characters are not allowed"),
        (b"app: a\nrun: caf\xe9\n", "headway.yaml:2: is not UTF-8 text"),
        ("a: " + "[" * 5000, "headway.yaml: is nested too deeply, or its aliases multiply"),
        ("a: &a [*a]", "headway.yaml: is nested too deeply, or its aliases multiply"),
        ("#" * 300_000, "headway.yaml: is larger than 256 KiB"),
    ],
)  # fmt: skip
def test_text_that_is_not_yaml(tmp_path: Path, text: str | bytes, fault: str) -> None:
    (said,) = faults(tmp_path, text)
    assert said.startswith(fault)


def test_exponential_aliases_are_refused(tmp_path: Path) -> None:
    levels = "".join(
        f"{name}: &{name} [{', '.join([f'*{below}'] * 9)}]\n"
        for below, name in zip("abcdefgh", "bcdefghi", strict=True)
    )
    (said,) = faults(tmp_path, f"a: &a [x]\n{levels}")
    assert said == "headway.yaml: is nested too deeply, or its aliases multiply"


def test_error_for_a_missing_file_shows_a_minimal_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        config.load(tmp_path)
    assert caught.value.what == f"{tmp_path}: no headway.yaml"
    minimum = caught.value.hint.partition("\n")[2]
    assert load(tmp_path, minimum).release_path() == ["production"]


def test_missing_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere: no such directory"):
        config.load(tmp_path / "nowhere")


def test_named_pipe_instead_of_the_file_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "headway.yaml")
    with pytest.raises(SettingsError, match="is not a regular file"):
        config.load(tmp_path)


@pytest.mark.parametrize("target", ["/etc/passwd", "elsewhere.yaml", "nothing"])
def test_a_link_instead_of_the_file_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "elsewhere.yaml").write_text(SHOP)
    (tmp_path / "headway.yaml").symlink_to(target)
    with pytest.raises(SettingsError, match=r"^headway\.yaml: is a symbolic link, which is not followed"):
        config.load(tmp_path)


def test_value_that_may_be_a_secret_is_not_in_the_error(tmp_path: Path) -> None:
    text = SHOP.replace("!secret shop-prod/database-url", "postgres://me:hunter2@db/shop").replace(
        "default: 3000", "default: {x: hunter2}"
    )
    said = faults(tmp_path, text)
    assert not any("hunter2" in fault for fault in said)
    said = faults(tmp_path, SHOP.replace("!secret shop-prod/database-url", "postgres://me:hunter2@db/shop"))
    assert said == [
        "headway.yaml:31: environments/production/env/DATABASE_URL: is a secret and must not be written here in clear: use !secret NAME/KEY"
    ]


# --- the env schema --------------------------------------------------------------------------------------------


def contract(variables: str, staging: str = "", production: str = "") -> str:
    return (
        f"app: shop\nrun: x\nenv: {{{variables}}}\nenvironments:\n"
        f"  staging: {{target: process/s, env: {{{staging}}}}}\n  production: {{target: process/p, env: {{{production}}}}}\n"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            contract("API: {type: url}, N: {type: integer}", staging="API: nowhere", production="N: x, NN: 1"),
            [
                "5: environments/staging/env/API: expected a URL, got 'nowhere'",
                "5: environments/staging/env/N: is missing: give it here, or a default in env/N",
                "6: environments/production/env/API: is missing: give it here, or a default in env/API",
                "6: environments/production/env/N: expected an integer, got 'x'",
            ],
        ),
        (
            contract("LEVEL: {choices: [low, high], default: low}", production="LEVEL: medium"),
            ["6: environments/production/env/LEVEL: expected one of low, high, got 'medium'"],
        ),
        (
            contract("DEBUG: {type: boolean, default: false}", production="DEBUG: yes"),
            ["6: environments/production/env/DEBUG: expected true or false, got 'yes'"],
        ),
        (
            contract("RATE: {type: number, default: 0.5}", production="RATE: half"),
            ["6: environments/production/env/RATE: expected a number, got 'half'"],
        ),
        (
            contract("KEY: {min_length: 4, default: abcd}", production="KEY: abc"),
            ["6: environments/production/env/KEY: expected at least 4 characters, got 3"],
        ),
    ],
)
def test_every_environment_is_validated_against_the_schema(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert faults(tmp_path, text) == [f"headway.yaml:{fault}" for fault in expected]


@pytest.mark.parametrize(
    ("text", "staging", "production"),
    [
        (contract("", staging="ANY: 1"), {"ANY": "1"}, {}),
        (contract("A: {default: 1.10}", production="A: 2"), {"A": "1.10"}, {"A": "2"}),
        (contract("A: {type: boolean, default: true}", production="A: False"), {"A": "true"}, {"A": "false"}),
        (contract("A: {required: false}", production="A: x"), {}, {"A": "x"}),
        (contract("PORT: {type: integer}, HEADWAY_APP: {}"), {}, {}),
        (
            contract("API_KEY: {secret: true}", production="API_KEY: !secret keys/api"),
            {"API_KEY": SecretRef(secret="shop-staging/api-key")},
            {"API_KEY": SecretRef(secret="keys/api")},
        ),
        (contract("API_KEY: {secret: true, required: false}"), {}, {}),
        (contract("A: {default: ''}"), {"A": ""}, {"A": ""}),
    ],
)
def test_environment_gets_defaults_and_its_own_values(
    tmp_path: Path, text: str, staging: dict[str, Any], production: dict[str, Any]
) -> None:
    read = load(tmp_path, text)
    assert read.variables("staging") == staging
    assert read.variables("production") == production


def test_resolved_secret_is_validated_without_appearing_in_errors(shop: Settings) -> None:
    assert shop.env["JWT_SECRET"].fault("x" * 32) is None
    assert shop.env["JWT_SECRET"].fault("hunter2") == "expected at least 32 characters, got 7"
    assert shop.env["DATABASE_URL"].fault("hunter2") == "expected a URL"


# --- what follows from it --------------------------------------------------------------------------------------


def test_a_release_goes_through_the_environments_as_written_without_preview(shop: Settings) -> None:
    assert shop.release_path() == ["staging", "production"]
    assert shop.release_path("staging") == ["staging"]


@pytest.mark.parametrize("to", ["preview", "prodction", ""])
def test_unknown_environment_lists_the_choices(shop: Settings, to: str) -> None:
    with pytest.raises(NotFound) as caught:
        shop.release_path(to)
    assert caught.value.hint == "environments of shop: staging, production"


PREVIEWED = """
app: shop
run: serve
env: {TOKEN: {secret: true, required: [production]}, KEY: {secret: true}, PLAIN: {default: said}}
environments:
  preview: {target: process/preview, env: {TOKEN: !secret ours/token}}
  production: {target: process/production}
"""


def test_preview_has_another_name_and_the_secrets_of_the_app(tmp_path: Path) -> None:
    shop = load(tmp_path, PREVIEWED)
    shown, refusal = shop.preview("shop-pr-42", secrets=True)
    assert (shown.app, list(shown.environments), refusal) == ("shop-pr-42", ["preview"], None)
    assert shown.variables("preview") == {
        "TOKEN": SecretRef(secret="ours/token"),
        "KEY": SecretRef(secret="shop-preview/key"),
        "PLAIN": "said",
    }
    assert shown.variables("preview") == shop.variables("preview")


def test_fork_gets_no_secrets_and_no_preview_if_it_needs_one(tmp_path: Path) -> None:
    shown, refusal = load(tmp_path, PREVIEWED).preview("shop-pr-42", secrets=False)
    assert refusal == Refusal("it is from a fork, which gets no secrets: KEY")
    assert shown.variables("preview") == {"PLAIN": "said"}
    optional = PREVIEWED.replace("KEY: {secret: true}", "KEY: {secret: true, required: false}")
    shown, refusal = load(tmp_path, optional).preview("shop-pr-42", secrets=False)
    assert (refusal, shown.variables("preview")) == (None, {"PLAIN": "said"})
    assert shown.launch_spec("preview", ARTIFACT).env == {"PLAIN": "said"}


def test_a_secret_outside_of_the_env_schema_is_required(tmp_path: Path) -> None:
    unknown = PREVIEWED.replace("KEY: {secret: true}, ", "").replace("{TOKEN: !secret", "{OTHER: !secret")
    _, refusal = load(tmp_path, unknown).preview("shop-pr-42", secrets=False)
    assert refusal == Refusal("it is from a fork, which gets no secrets: OTHER")


def test_build_of_a_fork_gets_no_build_secrets(tmp_path: Path) -> None:
    text = (
        "app: a\nbuild: {image: b/c, secrets: {NPM: !secret npm}}\nenvironments:\n  preview: {target: docker/preview}"
    )
    refused = Refusal("it is from a fork, which gets no secrets: NPM")
    assert load(tmp_path, text).preview("a-pr-1", secrets=False)[1] == refused
    assert load(tmp_path, text).preview("a-pr-1", secrets=True)[1] is None


def test_pull_request_without_a_preview_environment_runs_checks_only(tmp_path: Path) -> None:
    shown, refusal = load(tmp_path, "app: a\nchecks: {unit: pytest}").preview("a-pr-1", secrets=True)
    assert (list(shown.checks), shown.environments) == (["unit"], {})
    assert refusal == Refusal("headway.yaml has no environment preview")


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("target: vercel/a", "target: vercel runs one app a target: choose docker, kubernetes, process"),
        ("target: railway/a", "target: railway runs one app a target: choose docker, kubernetes, process"),
        ("target: process/a, port: 80", "port: each preview has a port of its own: leave it out"),
        (
            "target: process/a, strategy: {blue_green: {preview_port: 81}}",
            "strategy: each preview has ports of its own: leave preview_port out",
        ),
    ],
)
def test_settings_that_one_app_only_can_use_are_refused_for_previews(tmp_path: Path, said: str, fault: str) -> None:
    (found,) = faults(tmp_path, f"app: a\nrun: x\nenvironments:\n  preview: {{{said}}}")
    assert found == f"headway.yaml:4: environments/preview/{fault}"


def test_preview_on_kubernetes_does_not_use_the_apps_manifests(tmp_path: Path) -> None:
    text = "app: a\nbuild: {image: b/c}\nmanifests: k8s\nenvironments:\n  preview: {target: kubernetes/a}"
    assert load(tmp_path, text).manifests_of("preview") is None
    (found,) = faults(tmp_path, text.replace("kubernetes/a", "kubernetes/a, manifests: k8s/preview"))
    assert "environments/preview/manifests: their names are those of one app" in found


def test_a_launch_spec_has_all_a_target_needs(shop: Settings) -> None:
    spec = shop.launch_spec("production", ARTIFACT)
    assert (spec.environment, spec.target, spec.artifact) == ("production", "kubernetes/prod", ARTIFACT)
    assert (spec.run, spec.instances, spec.port) == ("node dist/server.js", 4, None)
    assert (spec.health.path, spec.health.startup, spec.health.timeout) == ("/health", 150.0, 2.0)
    assert (spec.stop_grace, spec.drain) == (10.0, 30.0)
    assert spec.env == shop.variables("production")


def test_what_the_proxy_does_is_said_by_the_app(tmp_path: Path) -> None:
    small = "app: a\nrun: ./b\nenvironments: {staging: {target: process/staging}}\n"
    http = "http: {timeout: 60s, idle_timeout: 5m, retry: 1, max_body: 100Mi, h2c: true}\nhealth: {host: shop.example.com}\n"
    spec = load(tmp_path, small + http).launch_spec("staging", ARTIFACT)
    assert spec.http == Http(timeout=60, idle_timeout=300, retry=1, max_body=100 * 2**20, h2c=True)
    assert spec.health.host == "shop.example.com"
    usual = load(tmp_path, small).launch_spec("staging", ARTIFACT)
    assert usual.http == Http()
    assert usual.configuration_hash() != spec.configuration_hash()


def test_an_upgrade_makes_no_new_revisions() -> None:
    spec = LaunchSpec(environment="production", artifact=ARTIFACT, run="node server.js", env={"A": "b"}, memory=1000)
    assert spec.configuration_hash() == "522fd0001ab8"  # as in 0.1.0


def test_a_range_of_instances_begins_with_the_fewest(tmp_path: Path) -> None:
    text = "app: a\nbuild: {image: b/c}\nenvironments:\n  staging: {target: kubernetes/a, instances: RANGE}"
    spec = load(tmp_path, text.replace("RANGE", "{min: 2, max: 10, cpu: 55%}")).launch_spec("staging", ARTIFACT)
    assert (spec.instances, spec.autoscale) == (2, Autoscale(min=2, max=10, cpu=55))
    spec = load(tmp_path, text.replace("RANGE", "{min: 2, max: 2}")).launch_spec("staging", ARTIFACT)
    assert (spec.instances, spec.autoscale) == (2, None)


def test_launch_spec_of_an_unknown_environment_lists_the_choices(shop: Settings) -> None:
    with pytest.raises(NotFound, match="did you mean 'production'"):
        shop.launch_spec("prodution", ARTIFACT)


# --- schema and reference --------------------------------------------------------------------------------------


def plain(value: object) -> object:
    """The settings as an editor's schema checker sees them, without YAML tags."""
    if isinstance(value, SecretRef):
        return value.secret
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("text", [SHOP, *(ENVIRONMENT + form for pair in SHORT_FORMS for form in pair)])
def test_json_schema_accepts_valid_settings(text: str) -> None:
    jsonschema.Draft202012Validator(config.schema()).validate(plain(Document(text).value))


# What a schema can see by itself: unknown keys, wrong types, wrong spelling.
@pytest.mark.parametrize(
    "text",
    [
        *(ENVIRONMENT + line for line, fault in ENVIRONMENT_FAULTS if "unknown key" in fault or "expected a list" in fault),
        *(text for text, fault in TOP_FAULTS if "unknown key" in fault or "retries: expected an integer" in fault or "is missing" in fault),
        ENVIRONMENT + "drain: soon",
        ENVIRONMENT + "strategy: roling",
        ENVIRONMENT + "env: {A-B: x}",
    ],
)  # fmt: skip
def test_json_schema_rejects_invalid_settings(text: str) -> None:
    checker = jsonschema.Draft202012Validator(config.schema())
    checker.check_schema(config.schema())
    assert not checker.is_valid(plain(Document(text).value))


def sections(section: type[BaseModel]) -> set[type[BaseModel]]:
    return {section, *(found for inner in section.__subclasses__() for found in sections(inner))}


@pytest.mark.parametrize(
    "section",
    sorted(sections(Section) - {Section}, key=str),
    ids=lambda section: str(section.__name__),
)
def test_every_key_has_a_one_line_description(section: type[BaseModel]) -> None:
    unsaid = [name for name, field in section.model_fields.items() if name != "kind" and not field.description]
    assert unsaid == []


@pytest.mark.parametrize("name", reference_docs.files())
def test_the_reference_is_up_to_date(name: str) -> None:
    written = Path(__file__).parents[3] / "docs" / "reference" / name
    assert written.read_text() == reference_docs.files()[name], "run `python -m headway.cli.reference_docs`"


def test_every_link_of_the_reference_has_a_target() -> None:
    page = reference_docs.files()["headway-yaml.md"]
    headings = {line.lstrip("# ").lower() for line in page.splitlines() if line.startswith("#")}
    links = {link.partition(")")[0] for link in page.split("](#")[1:]}
    assert links
    assert links <= headings


def test_a_canary_step_can_be_made_in_code() -> None:
    assert Canary(steps=(CanaryStep(weight=10, pause=5), CanaryStep(weight=100))).steps[0].pause == 5.0


# --- renamed keys ----------------------------------------------------------------------------------------------

OLD_KEY = "app: a\nchecks: {unit: pytest}\nleaks:\n  exceptions: {docs/: examples}\n"


def test_an_old_key_works_with_a_warning_that_names_the_new_one(tmp_path: Path) -> None:
    settings = load(tmp_path, OLD_KEY)

    assert settings.secret_scan.exceptions == {"docs/": "examples"}
    assert settings.warnings == (
        "headway.yaml:3: leaks is now called secret_scan; the old name stops working in 0.3.0",
    )
    assert load(tmp_path, OLD_KEY.replace("leaks", "secret_scan")).warnings == ()


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ("  exeptions: {}\n", "5: secret_scan/exeptions: unknown key 'exeptions' (did you mean 'exceptions'?)"),
        ("  exceptions: {}\n", "4: secret_scan/exceptions: is written twice, again in line 5"),
        ("secret_scan: {}\n", "3: leaks: is the old name of secret_scan, which is there too: remove this one"),
    ],
)
def test_error_under_an_old_key_has_its_line(tmp_path: Path, added: str, fault: str) -> None:
    assert faults(tmp_path, OLD_KEY + added) == [f"headway.yaml:{fault}"]
