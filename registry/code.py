"""The code of a plugin: all the Python files that it is made of, and one digest of them."""

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
    # Loading it takes a fifth of the start-up time.
    from importlib.metadata import EntryPoint

OURS = ("registry", "bench", "baselines")
LIBRARY_FOLDERS = ("site-packages", "dist-packages")


@dataclass(frozen=True)
class Code:
    """The Python files of a plugin as they were when it was loaded.

    Parameters
    ----------
    files : mapping of Path to str
        The sha256 of every file.
    digest : str
        Of a single file its sha256, of several one over their names and contents: the same on
        every machine, wherever they lie.
    libraries : tuple of str
        Installed modules that they import, which have versions instead.
    """

    files: Mapping[Path, str]
    digest: str
    libraries: tuple[str, ...]

    def edited(self, modules: Iterable[str]) -> Path | None:
        """Return the first file of these imported modules that is no longer what it was."""
        for name in modules:
            file = getattr(sys.modules.get(name), "__file__", None)
            known = self.files.get(Path(file).resolve()) if file else None
            if file and known and known != _sha256(Path(file)):
                return Path(file)
        return None


def code_of_file(file: Path) -> Code:
    """Return the code of a plugin file: with its package if it is an ``__init__.py``.

    Imported modules count wherever they lie, beside the file or on the path, except for Python's
    own, installed libraries and slicebench. To be called when the file has been executed, which
    may have changed the path.
    """
    return _code(_package(file.parent) if file.name == "__init__.py" else {file: file.name})


def code_of_entry_point(point: EntryPoint) -> Code:
    """Return the code of an installed plugin: its distribution's Python files and its package.

    An editable installation lists no files, and an incomplete one may have no list at all: then
    it is the package, or every part of the namespace package, that the entry point names.
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
        # Others may have parts of the same namespace package.
        return _code(listed)
    return _code({**_files_of(top), **listed})


def code_of_module(name: str) -> Code:
    """Return the code of the package that an imported module belongs to."""
    return _code(_files_of(name.partition(".")[0]))


def _code(files: dict[Path, str]) -> Code:
    """Follow the imports of `files` (with their names) and digest all that is found."""
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
    """Yield the files of each module that a file imports, or its name if it is a library's."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        # Whoever executes it says so.
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
    """Yield (level, module) of every import, also those within functions or by a literal name."""
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
    """Return the files of a module or package that lies in `folder`."""
    if folder.name in LIBRARY_FOLDERS:
        return {}
    if (folder / top / "__init__.py").is_file():
        return _package(folder / top)
    file = (folder / f"{top}.py").resolve()
    return {file: file.name} if file.is_file() else {}


def _package(folder: Path) -> dict[Path, str]:
    """Return the Python files of a folder and those below, with their names from its parent."""
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
    """Return the files of a top-level module or package on the path, every part of a namespace."""
    spec = _spec(top)
    if spec is None:
        return {}
    if spec.submodule_search_locations is not None:
        parts = [_package(Path(place)) for place in spec.submodule_search_locations]
        # An editable namespace package has no folder to look into, only modules once imported.
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
    """Tell whether a top-level module is installed and has a version instead of a digest."""
    spec = _spec(top)
    if spec is None:
        return False
    if spec.origin is None and top not in sys.modules:
        # Any folder of that name is a namespace package to be: not walked before it is imported.
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
