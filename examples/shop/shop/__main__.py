import os
import sys

from shop.config import Config, ConfigError
from shop.server import serve


def main() -> int:
    try:
        config = Config.read(os.environ)
    except ConfigError as error:
        print(f"shop: {error}", file=sys.stderr)
        return 2
    try:
        serve(config)
    except OSError as error:
        print(f"shop: port {config.port}: {error.strerror}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
