"""Load the Kubernetes manifests of an app's repository: plain files or a kustomize folder, with their locations.

`blocks.targets.kubernetes.manifests` sets Headway's fields in them; it consists of pure functions.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from headway.domain.errors import SettingsError
from headway.domain.revision import Manifest
from headway.system import untrusted_files
from headway.system.command_runner import clean_environment

__all__ = ["read"]

KUSTOMIZATION = ("kustomization.yaml", "kustomization.yml", "Kustomization")
SUFFIXES = (".yaml", ".yml", ".json")
BUILD_TIME = 60.0  # seconds for kustomize, which may fetch a base
# Characters: they are stored in an annotation of the revision, and all annotations together may have 256 KiB.
LARGEST = 192 * 1024
LARGEST_FILE = 4 * 2**20  # bytes
MOST_VALUES = 20_000
_HINT = "manifests: names one YAML file, a folder of them, or a kustomize folder"


def read(root: Path, where: str) -> tuple[Manifest, ...]:
    """The objects under a path of the repository, as written or as built by kustomize.

    Raises SettingsError with every fault, one per line: `k8s/web.yaml#2: message`, where 2 is
    the number of the document in the file.
    """
    faults: list[str] = []
    found: list[Manifest] = []
    for name, text in _texts(root, where):
        for number, document in _documents(name, text, faults):
            found += _objects(f"{name}#{number}", document, faults)
    if not found and not faults:
        faults.append(f"{where}: holds no objects")
    if sum(len(one.model_dump_json()) for one in found) > LARGEST:
        faults.append(f"{where}: is larger than {LARGEST // 1024} KiB, more than can be kept with a revision")
    if faults:
        raise SettingsError("\n".join(faults), _HINT)
    return tuple(found)


def _texts(root: Path, where: str) -> Iterator[tuple[str, str]]:
    """Texts to parse, with their names."""
    place = root / where
    if not place.exists() or not place.resolve().is_relative_to(root.resolve()):
        raise SettingsError(f"{where}: there is no such path in the repository", _HINT)
    if any((place / name).is_file() for name in KUSTOMIZATION):
        yield where, _built(place, where)
        return
    files = sorted(one for one in place.iterdir() if one.suffix in SUFFIXES) if place.is_dir() else [place]
    for file in files:
        name = str(file.relative_to(root))
        try:
            yield name, untrusted_files.read(file, root, LARGEST_FILE).decode("utf-8-sig")
        except untrusted_files.NotReadable as refused:
            raise SettingsError(f"{name}: {refused}", _HINT) from refused
        except UnicodeDecodeError as error:
            raise SettingsError(f"{name}: is not UTF-8 text", "save the file as UTF-8") from error
        except OSError as error:
            raise SettingsError(f"{name}: cannot be read: {error.strerror}", _HINT) from error


def _built(place: Path, where: str) -> str:
    if program := shutil.which("kustomize"):
        command = [program, "build", str(place)]
    elif program := shutil.which("kubectl"):
        command = [program, "kustomize", str(place)]
    else:
        raise SettingsError(
            f"{where}: is a kustomize folder, and there is neither kustomize nor kubectl to build it",
            "install one of them where Headway works, or write plain YAML",
        )
    try:
        done = subprocess.run(
            command, env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=BUILD_TIME
        )
    except subprocess.TimeoutExpired as error:
        raise SettingsError(
            f"{where}: kustomize has not come to an end in {BUILD_TIME:g} s", "does it fetch a base that is far away?"
        ) from error
    except OSError as error:
        raise SettingsError(f"{where}: {program} cannot be started: {error.strerror}", _HINT) from error
    if done.returncode:
        message = " ".join(done.stderr.decode(errors="replace").split())[:600]
        raise SettingsError(
            f"{where}: kustomize: {message or f'exit code {done.returncode}'}", f"try: kubectl kustomize {where}"
        )
    return done.stdout.decode(errors="replace")


class _Constructor(SafeConstructor):
    """Constructs plain values only: dates are text, as in kubectl."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def _documents(name: str, text: str, faults: list[str]) -> Iterator[tuple[int, Any]]:
    """Documents that are not empty, with their numbers. YAML 1.1, as in kubectl: the mode 0644 is octal."""
    yaml = YAML(typ="safe", pure=True)
    yaml.version = "1.1"
    yaml.Constructor = _Constructor
    try:
        for number, document in enumerate(yaml.load_all(text), 1):
            if document is not None:
                yield number, document
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        faults.append(f"{at}: is not YAML: {' '.join(str(error.problem or error.context).split())}")
    except (YAMLError, RecursionError, ValueError) as error:
        faults.append(f"{name}: is not YAML: {' '.join(str(error).split())[:300]}")


def _objects(source: str, document: Any, faults: list[str]) -> Iterator[Manifest]:
    """The object of a document, or those of a List."""
    if sum(1 for _ in islice(_values(document), MOST_VALUES + 1)) > MOST_VALUES:
        faults.append(f"{source}: has more than {MOST_VALUES} values, or its aliases multiply")
        return
    if not isinstance(document, dict):
        faults.append(f"{source}: is not an object of Kubernetes: expected a mapping")
        return
    if document.get("kind") == "List" and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from _objects(source, item, faults)
        return
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    given = {"apiVersion": document.get("apiVersion"), "kind": document.get("kind"), "metadata/name": name}
    lacking = [key for key, value in given.items() if not isinstance(value, str) or not value]
    if lacking:
        faults.append(f"{source}: is not an object of Kubernetes: it needs {', '.join(lacking)}")
        return
    try:
        yield Manifest(source=source, content=document)
    except ValidationError as error:
        path = "/".join(str(key) for key in error.errors()[0]["loc"][1:] if key not in ("dict", "list"))
        faults.append(f"{source}: {path}: is a value that JSON does not know")


def _values(value: Any) -> Iterator[Any]:
    """All values nested in a value. A value may contain itself."""
    left = [value]
    while left:
        one = left.pop()
        yield one
        if isinstance(one, dict):
            left += one.values()
        elif isinstance(one, list):
            left += one
