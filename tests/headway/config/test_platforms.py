"""Platforms, and environments whose platform is unknown or cannot run the artifact."""

from __future__ import annotations

from pathlib import Path

import pytest

from headway import config
from headway.config import platforms as room
from headway.domain.errors import HeadwayError, NotFound, SettingsError
from headway.domain.platform import Platform

KINDS = "docker, kubernetes, process, railway, vercel"


def test_every_installed_platform_is_known_by_its_kind() -> None:
    assert ", ".join(room.platforms()) == KINDS
    assert room.platform("process").artifacts == {"bundle"}


def test_an_unknown_platform_names_the_nearest_and_the_choices() -> None:
    with pytest.raises(NotFound, match=r"no platform is called 'proces' \(did you mean 'process'\?\)") as raised:
        room.platform("proces")
    assert raised.value.hint == f"there are: {KINDS}"


@pytest.mark.parametrize(
    "offered", ["not a platform", Platform(kind="other", target="a:B", artifacts=frozenset({"image"}))]
)
def test_an_entry_point_that_is_no_platform_of_its_name_is_an_error(
    monkeypatch: pytest.MonkeyPatch, offered: object
) -> None:
    monkeypatch.setattr(room, "extensions", lambda group: {"ecs": offered})
    with pytest.raises(HeadwayError, match="entry point 'ecs' is not a Platform with the kind 'ecs'"):
        room.platforms()


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            "run: x\nenvironments:\n  production: {target: proces/production}",
            (
                "4: environments/production/target: no platform is called 'proces' (did you mean 'process'?); "
                f"there are: {KINDS}"
            ),
        ),
        (
            (
                "build: {image: acme/shop}\nenvironments:\n  staging: {target: docker/a}\n"
                "  production: {target: process/production}"
            ),
            (
                "5: environments/production/target: process runs bundles, and build/image makes an image: choose "
                "another target"
            ),
        ),
        (
            "run: x\nenvironments:\n  production: {target: kubernetes/production}",
            (
                "4: environments/production/target: kubernetes runs images: build one with build/image, or "
                "choose another target"
            ),
        ),
    ],
)
def test_an_environment_with_an_impossible_target_is_an_error(tmp_path: Path, settings: str, fault: str) -> None:
    (tmp_path / "headway.yaml").write_text(f"app: shop\n{settings}\n")
    with pytest.raises(SettingsError) as raised:
        config.load(tmp_path)
    assert f"headway.yaml:{fault}" in str(raised.value)
