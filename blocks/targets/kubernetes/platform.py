"""The kubernetes platform: images, as Deployments of a namespace, optionally with the app's own manifests.

Modules that read schemas and start programs are imported on demand: they are slow, and only needed for Kubernetes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headway.domain.platform import Platform
from headway.domain.readiness import Finding
from headway.domain.revision import LaunchSpec, Manifest

__all__ = ["PLATFORM"]


class _Manifests:
    def read(self, root: Path, where: str) -> tuple[Manifest, ...]:
        from blocks.targets.kubernetes import manifest_files

        return manifest_files.read(root, where)

    def faults(self, app: str, image: str, manifests: tuple[Manifest, ...]) -> list[str]:
        from blocks.targets.kubernetes.manifest_validation import fault_lines

        return fault_lines(app, image, manifests)

    def replicas(self, app: str, manifests: tuple[Manifest, ...]) -> int:
        from blocks.targets.kubernetes.manifests import replicas

        return replicas(app, manifests)


def _readiness_findings(app: str, spec: LaunchSpec) -> Mapping[str, Finding]:
    from blocks.targets.kubernetes.readiness_checks import examine

    return examine(app, spec)


PLATFORM = Platform(
    kind="kubernetes",
    target="blocks.targets.kubernetes.target:KubernetesTarget",
    artifacts=frozenset({"image"}),
    autoscaling=True,
    manifests=_Manifests(),
    readiness_findings=_readiness_findings,
)
