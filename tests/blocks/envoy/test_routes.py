"""Routes, and the traffic that is read back from them."""

from __future__ import annotations

from blocks.envoy import routes
from headway.domain.revision import Http
from headway.domain.traffic import HeaderRule, Traffic

ALL = Http(timeout=30, idle_timeout=60, retry=2, max_body=1000, h2c=True)


def test_active_traffic_is_read_from_the_config_dump() -> None:
    rule = HeaderRule(name="x-beta", value="yes", revision="r2")
    known = {"r1": Http(), "r2": ALL}
    for wanted in (
        Traffic(),
        Traffic.all_to("r1"),
        Traffic(weights={"r1": 95, "r2": 5}, headers=(rule,), sticky=True),
        Traffic(weights={"r1": 100}, preview="r2"),
    ):
        dumped = [{"version_info": "v", "route_config": routes.preview(wanted, known)}]
        dumped.append({"version_info": "w", "route_config": routes.routes(wanted, known)})
        assert routes.route_traffic({"configs": dumped}) == ("w", wanted)
    assert routes.route_traffic({}) == ("", Traffic())
