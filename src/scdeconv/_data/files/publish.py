"""Files of one result, published together: under the final names are all old files or all new ones at any time.

Several files cannot be replaced in one system call, but a link to their directory can. :func:`publishing` writes the new
files to ``.scdeconv-XXXX/new`` beside the final names, then:

1. ``old`` receives hard links to the old files, and the link ``current`` leads to ``old``.
2. Each final name becomes a link to ``.scdeconv-XXXX/current/NAME``. Its content is unchanged.
3. ``current`` is replaced by a link to ``new``: all names have their new content.
4. Each link is replaced by the plain file that it leads to, and the hidden directory is removed.

A process that ends between two steps leaves links to complete files of one result. The hidden directory is locked by its
writer, so the next call in the same folder recognises it and runs step 4. Without symbolic links in the file system,
the files are renamed one after the other. A single new file or directory needs one rename.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from scdeconv._process import interrupts_deferred

from .locks import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

HIDDEN = ".scdeconv-"
NEW, OLD, CURRENT, NEXT = "new", "old", "current", "next"
# a publication takes milliseconds; a longer lock belongs to another program, such as flock(1)
LOCK_SECONDS = 10.0
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)

_observed: ContextVar[list[Path] | None] = ContextVar("observed", default=None)


@contextmanager
def published_paths() -> Iterator[list[Path]]:
    """Yield a list that receives the paths of all files that are published in the block."""
    paths: list[Path] = []
    token = _observed.set(paths)
    try:
        yield paths
    finally:
        _observed.reset(token)


def is_hidden(name: str) -> bool:
    """Return whether a name is that of the hidden directory of a publication."""
    return re.fullmatch(rf"{re.escape(HIDDEN)}[0-9a-f]{{8}}", name) is not None


def resolved(path: str | os.PathLike[str]) -> Path:
    """Return the absolute path behind ``~`` and the symbolic links of the user."""
    found = Path(path).expanduser().absolute()
    if found.name in ("", ".."):
        return found.resolve()
    clear_leftovers(found.parent)
    seen = set()
    while found.is_symlink() and found not in seen:
        seen.add(found)
        # another process may replace its link by the file
        with suppress(OSError):
            target = found.readlink()
            if not is_hidden(target.parts[0]):
                found = found.parent / target
    return found.parent.resolve() / found.name


@contextmanager
def publishing(
    *paths: str | os.PathLike[str], obsolete: Sequence[str | os.PathLike[str]] = (), overwrite: bool = True
) -> Iterator[tuple[Path, ...]]:
    """Yield temporary paths of new files (or directories), and publish them together after the block.

    After a failure the old files are unchanged. Files in different folders are published folder by folder.

    Parameters
    ----------
    *paths
        Final paths. Symbolic links are followed, missing folders are created. An existing directory is not replaced.
    obsolete
        Existing files that are removed in the same step.
    overwrite
        Replace existing files.

    Raises
    ------
    FileExistsError
        If a file exists and ``overwrite`` is False, also if it appeared during the block.
    """
    finals, removed = [resolved(path) for path in paths], [resolved(path) for path in obsolete]
    by_folder: dict[Path, list[Path]] = {}
    for path in (*finals, *removed):
        by_folder.setdefault(path.parent, []).append(path)
    with ExitStack() as stack:
        workplaces = {folder: stack.enter_context(_workplace(folder)) for folder in by_folder}
        yield tuple(workplaces[path.parent] / NEW / path.name for path in finals)
        for workplace in workplaces.values():
            _sync(*(workplace / NEW).rglob("*"), workplace / NEW)
        with interrupts_deferred():
            for folder, members in by_folder.items():
                with locked(folder, LOCK_SECONDS):
                    _refuse_existing(set(members).intersection(finals), overwrite=overwrite)
                    _exchange(workplaces[folder], [path.name for path in members])
                _sync(folder)
            note_written(*paths)


def try_writing(paths: Sequence[Path]) -> dict[Path, OSError]:
    """Write empty files in the place of a later publication, remove them, and return the errors by path.

    This finds missing rights, full disks and names that the file system refuses. In an existing directory, the files
    will have other names.
    """
    errors: dict[Path, OSError] = {}
    by_folder: dict[Path, list[Path]] = {}
    for path in paths:
        by_folder.setdefault(path if path.is_dir() else path.parent, []).append(path)
    for folder, members in by_folder.items():
        path = members[0]
        try:
            with _workplace(folder) as workplace:
                for path in members:
                    (workplace / NEW / ("file" if path == folder else path.name)).touch()
        except OSError as error:
            errors[path] = error
    return errors


def note_written(*paths: str | os.PathLike[str]) -> None:
    """Add files that were written in another way to :func:`published_paths`."""
    if (observed := _observed.get()) is not None:
        observed.extend(map(Path, paths))


def clear_leftovers(folder: Path) -> None:
    """Complete or undo the publications of killed processes in a folder, and remove their hidden directories."""
    # a folder that cannot be read or written keeps them
    with suppress(OSError):
        workplaces = [path for path in folder.glob(f"{HIDDEN}*") if is_hidden(path.name)]
        if not workplaces:
            return
        with interrupts_deferred(), locked(folder, LOCK_SECONDS) as certain:
            for workplace in workplaces if certain else ():
                # its writer holds the lock as long as it lives
                with locked(workplace) as dead:
                    if dead:
                        _settle(workplace)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """Yield a locked hidden directory, and remove it and, after a failure, the parent folders that were created."""
    created = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder)
    workplace = folder / f"{HIDDEN}{os.urandom(4).hex()}"
    with ExitStack() as stack:
        stack.callback(_remove_empty, created)
        with interrupts_deferred(), locked(folder, LOCK_SECONDS):
            stack.callback(_remove, workplace)
            (workplace / NEW).mkdir(parents=True)
            stack.enter_context(locked(workplace))
        yield workplace


def _remove(workplace: Path) -> None:
    with interrupts_deferred(), locked(workplace.parent, LOCK_SECONDS):
        _settle(workplace)


def _remove_empty(folders: Sequence[Path]) -> None:
    with suppress(OSError):
        for each in folders:
            each.rmdir()


def _refuse_existing(finals: Collection[Path], *, overwrite: bool) -> None:
    there = [path for path in sorted(finals) if path.is_dir() or (path.exists() and not overwrite)]
    if there:
        kind = "a directory" if there[0].is_dir() else "a file that another process wrote meanwhile"
        msg = f"Expected no file at {there[0]}, found {kind}. Choose another name."
        raise FileExistsError(msg)


def _exchange(workplace: Path, names: Sequence[str]) -> None:
    """Replace files by those in ``workplace / NEW``; names without a new file are removed."""
    folder, new = workplace.parent, workplace / NEW
    added = [name for name in names if (new / name).exists()]
    removed = [name for name in names if name not in added and os.path.lexists(folder / name)]
    for name in added:
        if (folder / name).exists():
            shutil.copymode(folder / name, new / name)
    if len(added) + len(removed) > 1 and _point_to_old(workplace, [*added, *removed]):
        try:
            for name in (*added, *removed):
                _symlink(f"{workplace.name}/{CURRENT}/{name}", folder / name, workplace)
            _symlink(NEW, workplace / CURRENT, workplace)
        finally:
            _replace_links(workplace)
        return
    for name in added:
        (new / name).replace(folder / name)
    for name in removed:
        (folder / name).unlink()


def _point_to_old(workplace: Path, names: Sequence[str]) -> bool:
    """Link the old files and make the link to their directory; return False if the file system has no links."""
    (workplace / OLD).mkdir()
    try:
        _symlink(OLD, workplace / CURRENT, workplace)
    except OSError as error:
        if error.errno in NO_LINKS:
            return False
        raise
    for name in names:
        content = Path(os.path.realpath(workplace.parent / name))
        if content.exists():
            try:
                (workplace / OLD / name).hardlink_to(content)
            except OSError:
                shutil.copy2(content, workplace / OLD / name)
    return True


def _symlink(target: str, path: Path, workplace: Path) -> None:
    """Make or replace a link in one step."""
    (workplace / NEXT).symlink_to(target)
    (workplace / NEXT).replace(path)


def _replace_links(workplace: Path) -> None:
    """Replace the links of a publication by their files; remove those that lead nowhere."""
    prefix = f"{workplace.name}/{CURRENT}/"
    with os.scandir(workplace.parent) as entries:
        links = [Path(entry) for entry in entries if entry.is_symlink()]
    for link in links:
        if not str(link.readlink()).startswith(prefix):
            continue
        content = workplace / CURRENT / link.name
        if content.exists():
            file = Path(os.path.realpath(content))
            (workplace / NEXT).unlink(missing_ok=True)
            # the file stays in the directory for readers that follow the link at this moment
            with suppress(OSError):
                (workplace / NEXT).hardlink_to(file)
                file = workplace / NEXT
            file.replace(link)
        else:
            link.unlink()


def _settle(workplace: Path) -> None:
    """Remove a hidden directory after its links were replaced by files."""
    if os.path.lexists(workplace / CURRENT):
        _replace_links(workplace)
    shutil.rmtree(workplace, ignore_errors=True)


def _sync(*paths: Path) -> None:
    """Write files and directories to the disk; some file systems refuse it for directories."""
    for path in paths:
        with suppress(OSError) if path.is_dir() else nullcontext():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
