"""Target of local processes under supervisord, behind Envoy."""
