"""Files of one result under their final names: all old or all new at every system call, whatever ends the process."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from scdeconv._data.files import clear_leftovers, locked, published_paths, publishing, resolved
from scdeconv._data.files import publish as module

NAMES = ("x.tsv", "x_lower.tsv", "x_upper.tsv")
EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "open", "os.chmod"}


def write(folder, text, names=NAMES, obsolete=(), **options):
    paths, removed = [folder / name for name in names], [folder / name for name in obsolete]
    with publishing(*paths, obsolete=removed, **options) as new:
        for path in new:
            path.write_text(text)


def contents(folder, names=NAMES):
    return tuple((folder / name).read_text() if (folder / name).exists() else None for name in names)


def fail_between(folder):
    with publishing(*(folder / name for name in NAMES)) as new:
        new[0].write_text("new")
        raise ZeroDivisionError


def write_beside_another(path):
    with publishing(path, overwrite=False) as (new,):
        new.write_text("mine")
        path.write_text("theirs")


def in_child(function, at=None, action=None):
    """Run a function in a forked process, with an action before its n-th call of the file system; return the exit code."""
    pid = os.fork()
    if pid == 0:
        code, count = 1, 0

        def before(event, arguments):
            nonlocal count
            if event in EVENTS:
                count += 1
                if count == at:
                    action()

        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.addaudithook(before)
            function()
            code = 0
        except KeyboardInterrupt:
            code = 130
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def end_with(number):
    return lambda: os.kill(os.getpid(), number)


def each_step(folder, function, prepare, number):
    """Yield the exit code for a signal before each call of the file system, until the function ends."""
    for step in range(1, 200):
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        prepare()
        code = in_child(function, step, end_with(number))
        yield code
        if code == 0:
            return
    pytest.fail("does not end")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("old", [NAMES, NAMES[:1], ()])
def test_interrupted_publication_is_old_or_new(tmp_path, number, old):
    before = tuple("old" if name in old else None for name in NAMES)
    states = []
    for code in each_step(
        tmp_path, lambda: write(tmp_path, "new"), lambda: [(tmp_path / n).write_text("old") for n in old], number
    ):
        states.append(contents(tmp_path))
        assert states[-1] in (before, ("new",) * 3)
        if number == signal.SIGINT:
            assert code in (0, 130)
        # the next run clears what was left, and changes no content
        clear_leftovers(tmp_path)
        assert contents(tmp_path) == states[-1]
        assert {path.name for path in tmp_path.iterdir()} <= set(NAMES)
        assert not any(path.is_symlink() for path in tmp_path.iterdir())
    assert set(states) == {before, ("new",) * 3}


def test_interrupted_removal_is_old_or_new(tmp_path):
    after = ("new", None, "old")
    states = set()
    for _ in each_step(
        tmp_path,
        lambda: write(tmp_path, "new", NAMES[:1], obsolete=NAMES[1:2]),
        lambda: [(tmp_path / name).write_text("old") for name in NAMES],
        signal.SIGKILL,
    ):
        states.add(contents(tmp_path))
        clear_leftovers(tmp_path)
        assert contents(tmp_path) in (after, ("old",) * 3)
    assert states == {after, ("old",) * 3}


def test_new_directory_is_whole_or_absent(tmp_path):
    def save():
        with publishing(tmp_path / "model") as (new,):
            new.mkdir()
            (new / "a").write_text("1")
            (new / "b").write_text("1")

    for _ in each_step(tmp_path, save, lambda: None, signal.SIGKILL):
        assert contents(tmp_path / "model", "ab") in ((None, None), ("1", "1"))


def test_failure_leaves_old_files_and_nothing_else(tmp_path):
    write(tmp_path, "old")
    with pytest.raises(ZeroDivisionError):
        fail_between(tmp_path)
    assert contents(tmp_path) == ("old",) * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    with pytest.raises(ZeroDivisionError), publishing(tmp_path / "deep" / "down" / "x.tsv"):
        raise ZeroDivisionError
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("step", range(6))
def test_failed_call_undoes_the_publication(tmp_path, monkeypatch, step):
    write(tmp_path, "old")
    whole, calls = Path.replace, []

    def replace(self, target):
        calls.append(target)
        if len(calls) == step + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    if step < 5:
        with pytest.raises(OSError, match="No space"):
            write(tmp_path, "new")
        assert contents(tmp_path) == ("old",) * 3
    clear_leftovers(tmp_path)
    monkeypatch.undo()
    assert not any(path.is_symlink() or path.is_dir() for path in tmp_path.iterdir())


def test_without_symbolic_links_files_are_renamed(tmp_path, monkeypatch):
    write(tmp_path, "old")

    def refuse(self, target, *_):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "symlink_to", refuse)
    write(tmp_path, "new", NAMES[:2], obsolete=NAMES[2:])
    assert contents(tmp_path) == ("new", "new", None)


def test_without_hard_links_old_files_are_copied(tmp_path, monkeypatch):
    write(tmp_path, "old")

    def refuse(self, target):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    states = set()
    for _ in each_step(
        tmp_path,
        lambda: write(tmp_path, "new"),
        lambda: [(tmp_path / n).write_text("old") for n in NAMES],
        signal.SIGKILL,
    ):
        states.add(contents(tmp_path))
    assert states == {("old",) * 3, ("new",) * 3}


def test_links_of_the_user_are_followed(tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for name in NAMES:
        (store / name).write_text("old")
        (tmp_path / name).symlink_to(Path("store") / name)
    write(tmp_path, "new")
    assert contents(store) == ("new",) * 3
    assert all((tmp_path / name).is_symlink() for name in NAMES)
    assert len(list(store.iterdir())) == 3


def test_dangling_link_is_written_through(tmp_path):
    (tmp_path / "x.tsv").symlink_to(tmp_path / "nowhere" / "y.tsv")
    write(tmp_path, "new", ["x.tsv"])
    assert (tmp_path / "nowhere" / "y.tsv").read_text() == "new"


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved("~/x.tsv") == tmp_path.resolve() / "x.tsv"


def test_appeared_file_is_not_replaced(tmp_path):
    with pytest.raises(FileExistsError, match="another process"):
        write_beside_another(tmp_path / "x")
    assert (tmp_path / "x").read_text() == "theirs"


def test_longest_names_can_be_published(tmp_path):
    names = ["x" * 255, "ü" * 127]
    write(tmp_path, "new", names)
    assert contents(tmp_path, names) == ("new", "new")


def test_permissions_of_the_old_file_stay(tmp_path):
    write(tmp_path, "old")
    (tmp_path / "x.tsv").chmod(0o600)
    write(tmp_path, "new")
    assert (tmp_path / "x.tsv").stat().st_mode & 0o777 == 0o600


def test_living_writers_are_left_alone(tmp_path):
    with publishing(tmp_path / "x") as (new,):
        new.write_text("mine")
        write(tmp_path, "other")
        assert new.exists()
    assert contents(tmp_path, ["x"]) == ("mine",)


def test_own_hidden_folders_of_users_stay(tmp_path):
    (tmp_path / ".scdeconv-cache").mkdir()
    (tmp_path / ".scdeconv-cache" / "thesis").write_text("mine")
    write(tmp_path, "new")
    assert (tmp_path / ".scdeconv-cache" / "thesis").exists()


def test_lock_of_another_program_does_not_block(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_SECONDS", 0.05)
    with locked(tmp_path):
        write(tmp_path, "new")
    assert contents(tmp_path) == ("new",) * 3


def test_concurrent_writers_leave_one_result(tmp_path):
    def writer(text):
        for _ in range(30):
            write(tmp_path, text)

    threads = [threading.Thread(target=writer, args=(text,)) for text in "abc"]
    for thread in threads:
        thread.start()
    looks = []
    while any(thread.is_alive() for thread in threads):
        looks.append(contents(tmp_path))
    for thread in threads:
        thread.join()
    first = next(number for number, look in enumerate(looks) if None not in look)
    assert not any(None in look for look in looks[first:])
    assert len(set(contents(tmp_path))) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_published_paths_are_observed(tmp_path):
    with published_paths() as paths:
        write(tmp_path, "new")
        with pytest.raises(ZeroDivisionError), publishing(tmp_path / "y"):
            raise ZeroDivisionError
    assert paths == [tmp_path / name for name in NAMES]
