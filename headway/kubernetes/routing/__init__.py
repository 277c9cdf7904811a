"""How requests are split between revisions on a cluster: by the number of pods, a Gateway, or ingress-nginx.

Each way is one file, and pure: wanted traffic becomes objects, and objects are read as traffic. The router sends them
and waits, the same for all ways.
"""

from __future__ import annotations

from headway.kubernetes.routing.by_gateway import ByGateway
from headway.kubernetes.routing.by_ingress import ByIngress
from headway.kubernetes.routing.by_pods import ByPods
from headway.kubernetes.routing.router import Router
from headway.kubernetes.routing.routing import Routing

__all__ = ["ByGateway", "ByIngress", "ByPods", "Router", "Routing"]
