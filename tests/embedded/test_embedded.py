"""The embedded server: found again, started once, and never in anybody's way."""

import fcntl
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from refold.embedded import EmbeddedServer, default_directory
from refold.embedded.binaries import Binaries
from refold.embedded.postmaster import Postmaster
from refold.embedded.together import used_together
from refold.errors import InputError, RefoldError
from tests.support.waiting import wait_until

FAST = {"fsync": "off"}


@pytest.fixture(scope="module")
def shared() -> Iterator[EmbeddedServer]:
    """A server for the tests that only look."""
    directory = Path(tempfile.mkdtemp(prefix="refold-embedded-"))
    with EmbeddedServer.start(directory, {**FAST, "work_mem": "7MB"}, delete=True) as server:
        yield server
    assert not directory.exists()


@pytest.fixture
def directory() -> Iterator[Path]:
    """An absent directory; what a test leaves running there is stopped."""
    parent = Path(tempfile.mkdtemp(prefix="refold-embedded-"))
    parent.chmod(0o711)
    yield parent / "server"
    for pid_file in parent.rglob("postmaster.pid"):
        EmbeddedServer.start(pid_file.parent.parent).stop(immediate=True)
    shutil.rmtree(parent)


def ask(server: EmbeddedServer, query: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
    return row[0] if row else None


def in_another_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Starts Python on some code, which finds a directory in argv[1] and prints."""
    preamble = "import os, pathlib, sys\nfrom refold.embedded import EmbeddedServer\n"
    preamble += "directory = pathlib.Path(sys.argv[1])\n"
    return subprocess.Popen(
        [sys.executable, "-c", preamble + code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_a_server_has_our_settings_and_the_given_ones(shared: EmbeddedServer) -> None:
    assert shared.running
    assert ask(shared, "SHOW work_mem") == "7MB"
    assert ask(shared, "SHOW listen_addresses") == ""
    assert ask(shared, "SHOW timezone") == "UTC"
    assert ask(shared, "SHOW server_encoding") == "UTF8"
    assert ask(shared, "SELECT 'a' < 'B'") is False, "texts sort by code point, on every machine"


def test_the_directory_is_private(shared: EmbeddedServer) -> None:
    assert stat.S_IMODE(shared.directory.stat().st_mode) == 0o700


def test_the_url_of_a_database_with_an_odd_name(shared: EmbeddedServer) -> None:
    name = "a/b?c=d & ü%"
    with psycopg.connect(shared.url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(shared.url_of(name)) as connection:
        assert connection.info.dbname == name


def test_a_second_start_finds_the_first(shared: EmbeddedServer) -> None:
    again = EmbeddedServer.start(shared.directory, {"work_mem": "9MB"}, delete=True)
    assert again.pid == shared.pid
    again.close()
    assert shared.running, "only who started a server stops it"


def test_pg_variables_of_the_environment_mean_other_servers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("PGCLIENTENCODING", "LATIN1")  # a server makes it the default of its clients
        server = EmbeddedServer.start(directory, FAST, delete=True)
    with server:
        assert ask(server, "SHOW client_encoding") == "UTF8"


def test_many_first_starts_at_once_make_one_server(directory: Path) -> None:
    code = "print(EmbeddedServer.start(directory, {'fsync': 'off'}).pid)"
    starts = [in_another_process(code, directory) for _ in range(6)]
    pids = {start.communicate()[0] for start in starts}
    assert [start.returncode for start in starts] == [0] * 6
    assert pids == {f"{EmbeddedServer.start(directory).pid}\n"}, "it outlives them, too"


def test_without_keep_it_ends_with_the_process_that_started_it(directory: Path) -> None:
    code = """
server = EmbeddedServer.start(directory, {'fsync': 'off'}, keep=False)
if os.fork() == 0:
    sys.exit()  # runs the exit handlers of a child, which must leave the server alone
os.wait()
print(server.running)
"""
    assert in_another_process(code, directory).communicate()[0] == "True\n"
    assert not (directory / "data" / "postmaster.pid").exists()
    assert (directory / "data" / "PG_VERSION").exists()


def test_a_throwaway_server_ends_with_the_process_and_leaves_nothing(directory: Path) -> None:
    process = in_another_process("print(EmbeddedServer.start(directory, delete=True).running)", directory)
    assert process.communicate()[0] == "True\n"
    assert not directory.exists()


def test_delete_spares_a_cluster_that_was_there_before(directory: Path) -> None:
    EmbeddedServer.start(directory, FAST).stop()
    with EmbeddedServer.start(directory, FAST, delete=True) as server:
        assert server.running
    assert not server.running
    assert (directory / "data" / "PG_VERSION").exists()


def test_a_stopped_server_says_so_and_starts_again(directory: Path) -> None:
    server = EmbeddedServer.start(directory, FAST)
    ask(server, "CREATE TABLE kept AS SELECT 1 AS one")
    server.stop()
    server.stop()
    assert not server.running
    with pytest.raises(RefoldError, match="is not running"):
        _ = server.url
    assert ask(EmbeddedServer.start(directory, {**FAST, "work_mem": "5MB"}), "SHOW work_mem") == "5MB"
    assert ask(server, "SELECT one FROM kept") == 1


def test_a_killed_server_starts_again_with_its_data(directory: Path) -> None:
    server = EmbeddedServer.start(directory, FAST)
    ask(server, "CREATE TABLE kept AS SELECT 1 AS one")
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.running)
    assert ask(EmbeddedServer.start(directory, FAST), "SELECT one FROM kept") == 1


def test_a_server_that_was_killed_this_instant_is_started(directory: Path) -> None:
    for _ in range(3):
        os.kill(EmbeddedServer.start(directory, FAST).pid, signal.SIGKILL)
        assert ask(EmbeddedServer.start(directory, FAST), "SELECT 1") == 1


def test_a_server_that_is_killed_while_it_is_waited_for_is_started(directory: Path) -> None:
    server = EmbeddedServer.start(directory, FAST)
    pid, file = server.pid, directory / "data" / "postmaster.pid"
    file.write_text(file.read_text().replace("ready", "starting"))
    assert not server.running
    start = in_another_process("print(EmbeddedServer.start(directory).running)", directory)
    with pytest.raises(subprocess.TimeoutExpired):
        start.wait(timeout=1)
    os.kill(pid, signal.SIGKILL)
    assert start.communicate(timeout=20)[0] == "True\n"


def test_a_new_server_waits_for_the_backends_of_a_killed_one(directory: Path) -> None:
    server = EmbeddedServer.start(directory, FAST)
    with psycopg.connect(server.url) as connection:
        backend = psutil.Process(connection.info.backend_pid)
        backend.suspend()  # so that it cannot notice that its postmaster has gone
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.running)
        start = in_another_process("print(EmbeddedServer.start(directory).running)", directory)
        with pytest.raises(subprocess.TimeoutExpired):
            start.wait(timeout=1)
        backend.resume()
        assert start.communicate()[0] == "True\n"
    assert not backend.is_running() or backend.status() == psutil.STATUS_ZOMBIE


def test_a_process_id_that_another_program_has_by_now(directory: Path) -> None:
    server = EmbeddedServer.start(directory, FAST)
    pid, files = server.pid, [directory / "data" / "postmaster.pid", directory / ".s.PGSQL.5432.lock"]
    kept = [file.read_text() for file in files]
    owner = files[0].stat()
    server.stop()
    user = owner.st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=user) as other:
        for file, text in zip(files, kept, strict=True):
            file.write_text(text.replace(str(pid), str(other.pid), 1))
            os.chown(file, owner.st_uid, owner.st_gid)
        assert not server.running
        assert EmbeddedServer.start(directory, FAST).running
        other.kill()


def test_an_interrupted_first_start_is_begun_anew(directory: Path) -> None:
    (directory / "data.new").mkdir(parents=True)
    (directory / "data.new" / "PG_VERSION").write_text("18\n")
    assert EmbeddedServer.start(directory, FAST).running


def test_a_cluster_of_another_version_is_left_alone(directory: Path) -> None:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(RefoldError, match=r"created by PostgreSQL 9\.6"):
        EmbeddedServer.start(directory)


def test_a_server_that_does_not_start_shows_its_log(directory: Path) -> None:
    with pytest.raises(RefoldError, match=r'(?s)The end of .*invalid value.*"shared_buffers": "plenty"'):
        EmbeddedServer.start(directory, {"shared_buffers": "plenty"})
    assert EmbeddedServer.start(directory, FAST).running


def test_a_directory_with_other_things_in_it_is_refused(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    (directory / "holiday.jpg").touch()
    with pytest.raises(RefoldError, match=r"contains other files \(holiday\.jpg\)"):
        EmbeddedServer.start(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


@pytest.mark.parametrize("name", ['it\'s $HOME, `id` "ü" %20', "long" * 40])
def test_any_path_will_do(directory: Path, name: str) -> None:
    with EmbeddedServer.start(directory.parent / name, FAST, delete=True) as server:
        socket_dir = Path(str(conninfo_to_dict(server.url)["host"]))
        assert ask(server, "SELECT 1") == 1
        assert stat.S_IMODE(socket_dir.stat().st_mode) == 0o700
    assert not socket_dir.exists()


def test_without_binaries_it_says_where_it_looked(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefoldError, match=r"no PostgreSQL server in .*/bin: initdb, pg_ctl"):
        EmbeddedServer.start(directory, bin_dir=directory / "bin")
    monkeypatch.setenv("REFOLD_POSTGRES_BIN", "/nowhere")
    with pytest.raises(RefoldError, match="no PostgreSQL server in /nowhere"):
        EmbeddedServer.start(directory)
    assert not directory.exists()


def test_a_path_that_is_a_file_is_refused(directory: Path) -> None:
    directory.touch()
    with pytest.raises(RefoldError, match=rf"needs a directory, but {directory} is a file"):
        EmbeddedServer.start(directory)


def test_a_server_of_another_user_is_named_as_theirs(directory: Path) -> None:
    (directory / "data").mkdir(parents=True)
    (directory / "data" / "postmaster.pid").touch()
    directory.chmod(0o700 if os.geteuid() == 0 else 0)
    owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        for look in (lambda: Postmaster.find(directory / "data"), lambda: EmbeddedServer.start(directory)):
            with pytest.raises(
                InputError, match=f"server in {directory} belongs to {owner}; .* may not access it"
            ) as told:
                look()
            assert "REFOLD_HOME" in str(told.value.remedy)
    finally:
        os.seteuid(before)
        directory.chmod(0o700)
        (directory / "data" / "postmaster.pid").unlink()


def test_the_default_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFOLD_HOME", "/srv/refold")
    assert default_directory() == Path("/srv/refold/postgres")
    monkeypatch.delenv("REFOLD_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", "/home/ann/data")
    assert default_directory().name == "postgres"
    assert default_directory().parent.name == "refold"


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run the server as another user")


@only_root
def test_root_opens_what_it_makes_itself(directory: Path, umask: Callable[[int], int]) -> None:
    umask(0o077)
    deep = directory / "closed" / "server"
    with EmbeddedServer.start(deep, FAST, delete=True) as server:
        assert psutil.Process(server.pid).uids().effective != 0
        assert stat.S_IMODE((directory / "closed").stat().st_mode) == 0o701
        assert stat.S_IMODE(deep.stat().st_mode) == 0o700


@only_root
def test_root_opens_nothing_that_was_there(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    with pytest.raises(RefoldError, match=f"as embedded_postgres, which cannot access {directory}") as refused:
        EmbeddedServer.start(directory / "deep" / "server", FAST)
    assert refused.value.remedy is not None and f"chmod o+x {directory}" in refused.value.remedy
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert list(directory.iterdir()) == []


@only_root
def test_root_s_own_directory_may_be_closed(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REFOLD_HOME", raising=False)
    directory.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_DATA_HOME", str(directory))
    assert default_directory() == Path("/var/lib/refold/postgres")
    # A server that is there already stays where it is.
    (directory / "refold" / "postgres").mkdir(parents=True)
    assert default_directory() == directory / "refold" / "postgres"
    shutil.rmtree(directory / "refold")
    directory.chmod(0o711)
    assert default_directory() == directory / "refold" / "postgres"


@only_root
def test_binaries_that_the_account_cannot_run_are_copied(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Binaries.find(None)
    root, installation = found.package()
    package = directory.parent / "package"
    package.mkdir(mode=0o700)
    for folder in installation:
        shutil.copytree(folder, package / folder.relative_to(root), symlinks=True)
    hidden = package / found.directory.relative_to(root)
    monkeypatch.setattr("refold.embedded.binaries._package", lambda: hidden)
    with EmbeddedServer.start(directory, FAST, delete=True) as server:
        (copied,) = directory.glob("postgresql-*")
        assert Path(psutil.Process(server.pid).exe()).is_relative_to(copied)
        assert stat.S_IMODE(package.stat().st_mode) == 0o700
        # Whoever comes later finds the copy.
        assert EmbeddedServer.start(directory).pid == server.pid


def test_who_comes_while_it_is_stopped_starts_it_again(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = used_together(directory), used_together(directory)
    pid = first.__enter__().pid

    def leave_first(users: object, operation: int) -> None:
        # The second has found the server running, and is not known as a user yet.
        monkeypatch.undo()
        first.__exit__(None, None, None)
        fcntl.flock(users, operation)  # type: ignore[arg-type]

    monkeypatch.setattr("refold.embedded.together.flock", leave_first)
    with second as server:
        assert server.pid != pid
        assert ask(server, "SELECT 1") == 1
    assert not server.running


def test_who_started_it_leaves_it_to_others(directory: Path) -> None:
    told: list[bool] = []
    first, second = used_together(directory, kept=lambda: told.append(True)), used_together(directory)
    first.__enter__()
    with second as server:
        first.__exit__(None, None, None)
        assert told == [True]
        assert ask(server, "SELECT 1") == 1
    assert server.running
