"""Names and labels of Headway's objects. An object without these labels is never changed."""

from __future__ import annotations

import re

from headway.domain.revision import Revision

__all__ = [
    "APP",
    "COMMAND",
    "ENDED",
    "ENVIRONMENT",
    "MANAGER",
    "OPEN",
    "OURS",
    "POOL",
    "RELEASE",
    "REVISION",
    "REVISION_OF",
    "ROUTER",
    "SCALER",
    "SPEC",
    "TRAFFIC",
    "canary",
    "command",
    "deployment",
    "labels",
    "of_revision",
    "preview",
    "revision_of",
    "selector",
    "state",
]

MANAGER = "headway"  # field manager of all fields but the number of replicas
SCALER = "headway-scale"  # field manager of the number of replicas, if no autoscaler owns it
ROUTER = "headway-traffic"  # of the selector of the app's Service: it changes alone, whatever others do to the Service
OURS = "headway.dev/"
APP = "headway.dev/app"
ENVIRONMENT = "headway.dev/environment"
COMMAND = "headway.dev/command"  # label of the pod that runs a command of an app
REVISION = "headway.dev/revision"
POOL = "headway.dev/pool"  # label of pods that share the traffic while several revisions have some
OPEN = "open"
# Annotations of a revision's Deployment: everything that a rollback needs without a ledger.
RELEASE = "headway.dev/release"
REVISION_OF = "headway.dev/revision-json"
SPEC = "headway.dev/launch-spec"
ENDED = "headway.dev/ended"  # when it was retired
TRAFFIC = "headway.dev/traffic"  # annotation of the app's Service: the wanted traffic, as text


def labels(app: str, environment: str, revision: str | None = None) -> dict[str, str]:
    """Labels of an object of an app, or of one of its revisions."""
    ours = {
        "app.kubernetes.io/name": app,
        "app.kubernetes.io/managed-by": MANAGER,
        APP: app,
        ENVIRONMENT: environment,
    }
    return ours | ({REVISION: revision} if revision else {})


def selector(**wanted: str) -> str:
    """A label selector: `selector(app="shop", revision="3f2a9c1-5be01f")`."""
    return ",".join(f"headway.dev/{name}={value}" for name, value in wanted.items())


def deployment(revision: Revision) -> str:
    """Name of a revision's Deployment, ConfigMap and Secret."""
    return of_revision(revision.app, revision.id)


def of_revision(app: str, revision: str) -> str:
    """Name of the objects of a revision, by its id."""
    return f"{app}-{revision}"


def revision_of(app: str, name: str) -> str | None:
    """Revision id in the name of an object or pod; None if it is of no revision."""
    found = re.match(rf"{re.escape(app)}-([0-9a-f]{{7}}-[0-9a-f]{{6}})(-|$)", name)
    return found[1] if found else None


def canary(app: str) -> str:
    """Name of the canary Ingress."""
    return f"{app}-canary"


def preview(app: str) -> str:
    """Name of the Service of the preview route."""
    return f"{app}-preview"


def command(app: str) -> str:
    """Name of the Pod that runs a command once. No Service selects it."""
    return f"{app}-command"


def state(app: str) -> str:
    """Name of the ConfigMap with the state of the app."""
    return f"{app}-headway"
