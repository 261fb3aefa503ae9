"""The code of a plugin: its Python files and their digest."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Importing it would take a fifth of the start-up time.
    from importlib.metadata import EntryPoint

OURS = ("registry", "bench", "baselines")
LIBRARY_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Code:
    """The Python files of a plugin at the time it was loaded.

    Parameters
    ----------
    files : mapping of Path to str
        The sha256 of each file.
    digest : str
        The sha256 of a single file, or a digest of the names and contents of several files. It
        does not depend on their location.
    libraries : tuple of str
        Installed modules that the files import; these are identified by their versions.
    """

    files: Mapping[Path, str]
    digest: str
    libraries: tuple[str, ...]

    def edited(self, modules: Iterable[str]) -> Path | None:
        """Return the first file of the given imported modules that was changed since loading."""
        for name in modules:
            file = getattr(sys.modules.get(name), "__file__", None)
            known = self.files.get(Path(file).resolve()) if file else None
            if file and known and known != _sha256(Path(file)):
                return Path(file)
        return None


def code_of_file(file: Path) -> Code:
    """Return the code of a plugin file, or of its package if it is an ``__init__.py``.

    Modules that it imports are included, whether they are in the same directory or on the import
    path, except for the standard library, installed libraries and slicebench. Must be called after
    the file was executed, because that may change the import path.
    """
    return _code(_package(file.parent) if file.name == "__init__.py" else {file: file.name})


def code_of_entry_point(point: EntryPoint) -> Code:
    """Return the code of an installed plugin: the Python files of its distribution and package.

    Editable installations do not list their files, and the list may be missing. In these cases,
    the package (or all parts of the namespace package) of the entry point is used.
    """
    listed = {
        Path(str(part.locate())).resolve(): part.as_posix()
        for part in (point.dist.files if point.dist is not None else None) or ()
        if part.suffix == ".py" and ".." not in part.parts and "__editable__" not in part.name
    }
    listed = {file: name for file, name in listed.items() if file.is_file()}
    top = point.module.partition(".")[0]
    spec = _spec(top)
    if listed and (spec is None or spec.origin is None):
        # Other distributions may contain parts of the same namespace package.
        return _code(listed)
    return _code({**_files_of(top), **listed})


def code_of_module(name: str) -> Code:
    """Return the code of the top-level package of an imported module."""
    return _code(_files_of(name.partition(".")[0]))


def _code(files: dict[Path, str]) -> Code:
    """Return the code of `files` (path to name) and of everything that they import."""
    files = {file.resolve(): name for file, name in files.items()}
    sources, libraries = {}, set()
    waiting = list(files)
    while waiting:
        file = waiting.pop()
        sources[file] = file.read_bytes()
        for found in _imported(file, sources[file]):
            if isinstance(found, str):
                libraries.add(found)
                continue
            new = {path: name for path, name in found.items() if path not in files}
            files |= new
            waiting += new
    hashes = {file: hashlib.sha256(source).hexdigest() for file, source in sources.items()}
    if len(hashes) == 1:
        (digest,) = hashes.values()
    else:
        pairs = sorted([files[file], sha256] for file, sha256 in hashes.items())
        digest = hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
    return Code(hashes, digest, tuple(sorted(libraries)))


def _imported(file: Path, source: bytes) -> Iterator[dict[Path, str] | str]:
    """Yield the files of each module that a file imports, or its name if it is a library."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # The error is reported when the file is executed.
        return
    for level, module in _statements(tree):
        top = module.partition(".")[0]
        if level:
            above = [*file.parents][level - 1 : level]
            yield {} if not above else _beside(above[0], top) or _package(above[0] / top)
        elif top in OURS or top in sys.stdlib_module_names:
            continue
        elif beside := _beside(file.parent, top):
            yield beside
        else:
            yield top if _is_library(top) else _files_of(top)


def _statements(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (level, module) of all imports, including those in functions and by literal name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.level, node.module
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            name = getattr(node.args[0], "value", None)
            if called in ("import_module", "__import__") and isinstance(name, str) and name:
                stem = name.lstrip(".")
                yield len(name) - len(stem), stem


def _beside(folder: Path, top: str) -> dict[Path, str]:
    """Return the files of a module or package in `folder`."""
    if folder.name in LIBRARY_FOLDERS:
        return {}
    if (folder / top / "__init__.py").is_file():
        return _package(folder / top)
    file = (folder / f"{top}.py").resolve()
    return {file: file.name} if file.is_file() else {}


def _package(folder: Path) -> dict[Path, str]:
    """Return the Python files in a directory tree, with their names relative to its parent."""
    found, seen = {}, set()
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place)
        if here.resolve() in seen:
            folders.clear()
            continue
        seen.add(here.resolve())
        folders[:] = sorted(n for n in folders if n != "__pycache__" and not n.startswith("."))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith(".") and (here / name).is_file():
                found[(here / name).resolve()] = (here / name).relative_to(folder.parent).as_posix()
    return found


def _files_of(top: str) -> dict[Path, str]:
    """Return the files of a top-level module or package, or all parts of a namespace package."""
    spec = _spec(top)
    if spec is None:
        return {}
    if spec.submodule_search_locations is not None:
        parts = [_package(Path(place)) for place in spec.submodule_search_locations]
        # An editable namespace package has no directory, only modules that were imported.
        return {file: name for part in parts for file, name in part.items()} or _loaded(top)
    file = Path(spec.origin or "")
    return {file.resolve(): file.name} if file.suffix == ".py" and file.is_file() else {}


def _loaded(top: str) -> dict[Path, str]:
    found = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
    return {
        Path(file).resolve(): f"{name.replace('.', '/')}.py"
        for name, file in found.items()
        if file and file.endswith(".py") and name.startswith(f"{top}.")
    }


def _is_library(top: str) -> bool:
    """Return whether a top-level module is an installed library."""
    spec = _spec(top)
    if spec is None:
        return False
    if spec.origin is None and top not in sys.modules:
        # Any directory of that name could be a namespace package, so it is only searched if it
        # was imported.
        return True
    places = [spec.origin or "", *(spec.submodule_search_locations or ())]
    standard = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib"))
    return any(
        place.startswith(standard) or set(Path(place).parts) & set(LIBRARY_FOLDERS)
        for place in places
    )


def _spec(top: str) -> ModuleSpec | None:
    try:
        return find_spec(top)
    except (ImportError, ValueError, AttributeError):
        return None


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
