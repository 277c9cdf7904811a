import pytest

from shop.config import Config, ConfigError


def test_defaults() -> None:
    assert Config.read({"PORT": "8000"}) == Config(8000, "dev", "EUR", "info")


def test_everything() -> None:
    env = {"PORT": "1", "HEADWAY_VERSION": "abc", "CURRENCY": "USD", "LOG_LEVEL": "debug"}
    assert Config.read(env) == Config(1, "abc", "USD", "debug")


@pytest.mark.parametrize("port", ["", "http", "0", "65536", "-1", "8000 ", "²"])
def test_a_wrong_port(port: str) -> None:
    with pytest.raises(ConfigError, match="PORT: is .* expected the port to listen on"):
        Config.read({"PORT": port})


def test_all_faults_at_once() -> None:
    with pytest.raises(ConfigError, match="PORT: .*; CURRENCY: .* EUR, USD; LOG_LEVEL: .* debug, info"):
        Config.read({"CURRENCY": "XXX", "LOG_LEVEL": "loud"})
