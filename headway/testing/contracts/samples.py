"""An app that a contract test can launch."""

from __future__ import annotations

from pathlib import Path

from headway.domain.revision import Artifact, Health, LaunchSpec, ProbeSettings
from headway.system import sealed_tree

__all__ = ["SAMPLE_APP", "launch_spec", "sample_bundle"]

SAMPLE_APP = Path(__file__).with_name("sample_app.py").read_text()
"""Source of the app. Build an image from it when the target runs images; set LISTEN=0.0.0.0 in it."""


def sample_bundle(directory: Path) -> Artifact:
    """A bundle with the sample app as `app.py`. Makes the directory."""
    directory.mkdir(parents=True)
    (directory / "app.py").write_text(SAMPLE_APP)
    sealed_tree.seal(directory)
    digest = f"sha256:{sealed_tree.digest_of(directory)}"
    return Artifact(digest=digest, location=str(directory), size=len(SAMPLE_APP), sealed=True)


def launch_spec(artifact: Artifact, run: str = "exec python3 app.py", instances: int = 1) -> LaunchSpec:
    """A launch spec with short times. `run` is empty when the artifact has a command of its own."""
    return LaunchSpec(
        environment="staging",
        artifact=artifact,
        run=run,
        instances=instances,
        health=Health(startup=20, startup_probe=ProbeSettings(period=1, failures=1)),
        stop_grace=2,
        drain=2,
    )
