"""What is no plain file is told at once; it is neither waited for nor read without end."""

import os
import socket
from pathlib import Path

import pytest

from kdzoo.errors import InputError
from kdzoo.files import read_file, read_text, user_cache
from kdzoo.runs.store import RunFolder


def test_a_plain_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\xff")
    assert read_file(tmp_path / "a") == b"one\xff"
    assert read_text(tmp_path / "a") == "one\ufffd"


def test_a_pipe_a_folder_a_device_a_socket_and_a_link_to_one_are_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name in ("pipe", "folder", "device", "loop", "socket"):
            with pytest.raises(OSError):  # noqa: PT011  which error it is is the system's choice
                read_file(tmp_path / name)


def test_a_file_beyond_the_limit_is_told(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="larger than"):
        read_file(tmp_path / "a")


@pytest.mark.parametrize("content", ["[" * 200_000, '{"a":' * 100_000])
def test_a_deeply_nested_record_is_damaged(tmp_path: Path, content: str) -> None:
    folder = RunFolder(tmp_path / "hinton-0123456789ab")
    folder.path.mkdir()
    (folder.path / "result.json").write_text(content)
    assert folder.state() == "damaged"
    with pytest.raises(InputError, match=r"result\.json: damaged"):
        folder.result()


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Path, "home", classmethod(lambda _: (_ for _ in ()).throw(RuntimeError("no home"))))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(InputError, match="set KDZOO_CACHE to a folder"):
        user_cache()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path
