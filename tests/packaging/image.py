#!/usr/bin/env python3
"""Walks the Dockerfile: every step in a scratch directory that stands for the image, then the image's own commands.
See tests/packaging.sh."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from dockerfile import Ignore, options, pairs, steps, words
from report import ROOT, accepts, aloud, as_user, ended, free_ports, need, outcome, run_checks, wait_until

# Always the same, so that a second walk with a given binary finds what the first has checked.
BUILD = ROOT / "target" / "packaging"
# `docker stop` and its like kill after this many seconds.
GRACE_SECONDS = 10
# Libraries that are in debian:*-slim.
BASE_LIBRARIES = {"linux-vdso.so.1", "libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2",
                  "ld-linux-aarch64.so.1"}
# Steps that change the system of the base image itself.
OF_THE_BASE = ("apt-get ",)
FOLDERS_WITHOUT_SOURCE = {".git", "target", "node_modules", "sabir-data", "__pycache__", ".venv"}

given = os.environ.get("SABIR_BIN")
manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())


class Stage:
    def __init__(self, base, root):
        self.base, self.root, self.cwd, self.user = base, root, "/", None
        self.env, self.labels, self.ports, self.volumes = {}, {}, [], []
        self.entrypoint = self.cmd = self.health = self.health_options = self.stop_signal = None

    def path(self, inside):
        """Where a path of the image is in the scratch directory."""
        return self.root / os.path.normpath(os.path.join(self.cwd, inside)).lstrip("/")


class Image:
    def __init__(self):
        # Reachable for the image's user wherever this checkout is.
        self.scratch = Path(tempfile.mkdtemp(prefix="sabir-image."))
        self.scratch.chmod(0o755)
        self.context = self.read_context()
        self.stages, self.built, self.process = {}, [], None

    @staticmethod
    def read_context():
        """The files that an engine would be sent."""
        ignore, found = Ignore(ROOT / ".dockerignore"), []
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [name for name in folders if name not in FOLDERS_WITHOUT_SOURCE]
            at = Path(folder).relative_to(ROOT)
            found += [path for path in (str(at / name) for name in files) if not ignore.leaves_out(path)]
        return sorted(found)

    # The steps.

    def walk(self):
        for number, instruction, rest in steps(ROOT / "Dockerfile"):
            try:
                getattr(self, "step_" + instruction.lower())(rest)
            except Exception as problem:
                raise type(problem)(f"Dockerfile:{number}: {problem}") from problem
            if instruction == "RUN":
                print(f"     Dockerfile:{number}: RUN done", flush=True)

    def step_from(self, rest):
        base, _, name = rest.partition(" AS ")
        aloud(f"FROM {base}: this machine's own system stands for it")
        name = name or "image"
        root = BUILD / f"stage-{name}" if name == "build" else self.scratch / name
        if root.exists():
            shutil.rmtree(root)
        root.mkdir(parents=True)
        self.stage = self.stages[name] = Stage(base, root)

    def step_workdir(self, rest):
        self.stage.cwd = os.path.join(self.stage.cwd, rest)
        self.stage.path(".").mkdir(parents=True, exist_ok=True)

    def step_copy(self, rest):
        given_options, rest = options(rest)
        need(set(given_options) <= {"from"}, f"COPY with {given_options} is not known to this walk")
        *sources, target = shlex.split(rest)
        to = self.stage.path(target)
        into = target.endswith("/") or len(sources) > 1 or to.is_dir()
        for source in sources:
            if "from" in given_options:
                origin = self.stages[given_options["from"]].root / source.lstrip("/")
                need(origin.is_file(), f"{source} is no file of stage {given_options['from']}")
                files = [(origin, Path(origin.name))]
            else:
                prefix = "" if source == "." else source.rstrip("/") + "/"
                # What is copied of a folder is what is in it.
                files = [(ROOT / path, Path(path).relative_to(prefix or "."))
                         for path in self.context if path.startswith(prefix)]
                if source in self.context:
                    files = [(ROOT / source, Path(Path(source).name))]
                need(files, f"{source} is not in the build context; does .dockerignore leave it out?")
            is_folder = "from" not in given_options and source not in self.context
            for origin, name in files:
                place = to / name if is_folder or into else to
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, place)

    def step_run(self, rest):
        checked = subprocess.run(["sh", "-n", "-c", rest], capture_output=True, text=True)
        need(checked.returncode == 0, f"sh does not read it: {checked.stderr}")
        if rest.startswith(OF_THE_BASE):
            aloud(f"RUN {rest.split('&&')[0].strip()} …: it changes the system of the base image")
            return
        need(not re.search(r"(^|[\s>=:\"'])/[a-z]", rest), f"an absolute path cannot be walked: RUN {rest}")
        if rest.startswith("chown ") and os.getuid() != 0:
            aloud(f"RUN {rest}: only root may")
            return
        env = dict(os.environ, PATH=f"{self.tools()}:{os.environ['PATH']}", **self.stage.env)
        env.pop("CARGO_TARGET_DIR", None)
        done = subprocess.run(["sh", "-c", rest], cwd=self.stage.path("."), env=env, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        need(done.returncode == 0, f"RUN {rest} ends with {done.returncode}:\n{done.stdout[-4000:]}")
        if "cargo build" in rest:
            # Else the result is that of the empty crates.
            for crate in ("sabir-model", "sabir"):
                need(re.search(rf"^ *(Compiling|Checking) {crate} v", done.stdout, re.M), f"cargo took {crate} for unchanged")

    def tools(self):
        """A `cargo` for the RUN lines: notes how it is called and, where a binary is given, checks instead of building."""
        folder = self.scratch / "tools"
        folder.mkdir(exist_ok=True)
        cargo, log = shutil.which("cargo"), self.scratch / "cargo.log"
        # With the settings that it finds, which libraries are built with, too.
        lines = ["#!/bin/sh", f"echo \"$* $(cksum .cargo/config.toml)\" >>{shlex.quote(str(log))}"]
        if given:
            # The same crates with the same lock file, up to the point where machine code would be made.
            lines += ["[ \"$1\" = build ] || exit 64", "shift", "for word; do shift",
                      "    [ \"$word\" = --release ] || set -- \"$@\" \"$word\"", "done",
                      f"CARGO_TARGET_DIR={shlex.quote(str(ROOT / 'target'))} {shlex.quote(cargo)} check \"$@\" &&",
                      "    mkdir -p target/release &&",
                      f"    cp -f {shlex.quote(os.path.realpath(given))} target/release/sabir"]
        else:
            lines += [f"exec {shlex.quote(cargo)} \"$@\""]
        (folder / "cargo").write_text("\n".join(lines) + "\n")
        (folder / "cargo").chmod(0o755)
        self.calls = log
        return folder

    def step_user(self, rest):
        self.stage.user = rest
        if os.getuid() != 0:
            aloud(f"USER {rest}: only root may become somebody else")

    def step_env(self, rest):
        self.stage.env.update(pairs(rest))

    def step_label(self, rest):
        self.stage.labels.update(pairs(rest))

    def step_expose(self, rest):
        self.stage.ports += [int(port) for port in rest.split()]

    def step_volume(self, rest):
        self.stage.volumes += rest.split()

    def step_stopsignal(self, rest):
        self.stage.stop_signal = signal.Signals[rest]

    def step_healthcheck(self, rest):
        self.stage.health_options, rest = options(rest)
        self.stage.health = words(rest.removeprefix("CMD "))

    def step_entrypoint(self, rest):
        self.stage.entrypoint = words(rest)

    def step_cmd(self, rest):
        self.stage.cmd = words(rest)

    # What must hold of what they made.

    def build_is_that_of_the_repository(self):
        build = self.stages["build"]
        lines = self.calls.read_text().splitlines()
        need(len(lines) == 2 and lines[0] == lines[1], f"the two builds differ, so nothing is reused: {lines}")
        need({"--release", "--locked"} <= set(lines[0].split()), f"cargo {lines[0]}")
        # A checkout above the scratch directory would stand in for a file that was not copied.
        need(build.path(".cargo/config.toml").is_file(), ".cargo/config.toml is not copied")
        version = manifest["workspace"]["package"]["rust-version"]
        need(build.base.startswith(f"rust:{version}-"), f"{build.base} is not Rust {version}")
        need(build.base.rsplit("-", 1)[1] == self.image.base.split(":")[1].split("-")[0],
             f"{build.base} and {self.image.base} have different C libraries")
        if given:
            aloud(f"cargo {' '.join(lines[0].split()[:-3])}: checked by `cargo check`; the binary is {given}")

    def description_is_true(self):
        image, package = self.image, manifest["package"]
        for name, value in [("version", manifest["workspace"]["package"]["version"]),
                            ("licenses", manifest["workspace"]["package"]["license"]),
                            ("description", package["description"])]:
            found = image.labels.get(f"org.opencontainers.image.{name}")
            need(found == value, f"the label of the {name} is {found!r}, Cargo.toml has {value!r}")
        need(re.fullmatch(r"[1-9]\d*:[1-9]\d*", image.user or ""), f"USER {image.user} is not numeric and not root's")
        need(image.volumes == [image.env["SABIR__STORE__DIR"]] == [image.cwd], "volume, directory and data differ")
        need(sorted(image.ports) == sorted(self.listeners()), f"EXPOSE {image.ports}, ENV {self.listeners()}")
        need(image.health[0] == image.entrypoint[0], "the binary itself tells whether it is healthy")
        need(image.health_options.get("timeout") == "5s", "longer than the 3 s of `sabir health`")
        drain = int(image.env["SABIR__SERVER__DRAIN_TIMEOUT_MS"])
        need(drain + 2000 <= GRACE_SECONDS * 1000, f"engines kill after {GRACE_SECONDS} s, draining takes {drain} ms")

    def listeners(self):
        ours = self.image.env.items()
        return [int(value.rsplit(":", 1)[1]) for key, value in ours if key.startswith("SABIR__LISTENERS__")]

    def binary_needs_nothing_else(self):
        binary = self.image.path(self.image.entrypoint[0])
        need(os.access(binary, os.X_OK), f"{binary} cannot be executed")
        listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True).stdout
        libraries = {Path(line.split()[0]).name for line in listed.splitlines() if line.strip()}
        need(libraries <= BASE_LIBRARIES, f"the base image does not have {libraries - BASE_LIBRARIES}")

    # The image's own commands.

    @property
    def image(self):
        return self.stages["image"]

    def command(self, line):
        return [str(self.image.path(line[0])), *line[1:]]

    def environment(self):
        env = {"PATH": os.environ["PATH"]}
        for key, value in self.image.env.items():
            for volume in self.image.volumes:
                if value == volume or value.startswith(volume + "/"):
                    value = str(self.image.path(value))
            if key.startswith("SABIR__LISTENERS__"):
                address, port = value.rsplit(":", 1)
                value = f"{address}:{self.ports[int(port)]}"
            env[key] = value
        return env

    def sabir(self, *line, text=""):
        return outcome(self.command(self.image.entrypoint + list(line)), self.environment(), self.image.user, text)

    def health(self):
        return outcome(self.command(self.image.health), self.environment(), self.image.user)

    def start(self):
        image = self.image
        with open(self.scratch / "broker.log", "ab") as log:
            self.process = subprocess.Popen(as_user(image.user) + self.command(image.entrypoint + image.cmd),
                                            env=self.environment(), cwd=image.path("."), stdout=log, stderr=log)

        def healthy():
            need(self.process.poll() is None, (self.scratch / "broker.log").read_text())
            return self.health()[0] == 0

        wait_until("HEALTHCHECK", healthy)

    def stop(self):
        self.process.send_signal(self.image.stop_signal)
        status = ended(self.process, GRACE_SECONDS)
        need(status == 0, f"the stop ends with {status}:\n{(self.scratch / 'broker.log').read_text()[-4000:]}")

    def server(self):
        port = self.image.env["SABIR__LISTENERS__STOMP"].rsplit(":", 1)[1]
        return f"stomp://walker:secret@127.0.0.1:{self.ports[int(port)]}"

    def refuses_without_users(self):
        self.ports = dict(zip(self.image.ports, free_ports(len(self.image.ports))))
        status, said = self.sabir(*self.image.cmd)
        need(status == 1 and "sabir user add" in said, f"without users: status {status}: {said}")
        status, said = self.health()
        need(status == 1, f"HEALTHCHECK of nobody has status {status}: {said}")
        status, said = self.sabir("user", "add", "walker", text="secret\n")
        need(status == 0, said)

    def serves(self):
        self.start()
        if os.getuid() == 0:
            uid = self.image.user.split(":")[0]
            status = Path(f"/proc/{self.process.pid}/status").read_text()
            need(re.search(rf"^Uid:\s+{uid}\s+{uid}\s+{uid}\s", status, re.M), "the broker runs as another user")
        for port in self.ports.values():
            need(accepts(port), f"nobody listens on {port}")
        status, said = self.sabir("pub", "/queue/walk", "kept", "--persistent", "--receipt", "-s", self.server())
        need(status == 0, said)

    def drains(self):
        status, said = self.sabir("pub", "/queue/greeting", "hello", "-s", self.server())
        need(status == 0, said)
        client = subprocess.Popen(self.command([*self.image.entrypoint, "sub", "/queue/greeting", "-s", self.server()]),
                                  env={}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            # Then it is connected and waits for more.
            greeting = client.stdout.readline()
            need(greeting == "hello\n", f"a client got {greeting!r}")
            self.stop()
            said = client.communicate(timeout=GRACE_SECONDS)[0]
        finally:
            client.kill()
            client.wait()
        need("[shutting-down]" in said, f"a client was not told of the stop: {said!r}")
        status, said = self.health()
        need(status == 1, f"HEALTHCHECK after the stop has status {status}: {said}")

    def keeps_its_data_in_the_volume(self):
        self.start()
        status, said = self.sabir("sub", "/queue/walk", "-n", "1", "--idle", "20", "-s", self.server())
        need((status, said) == (0, "kept\n"), f"after a restart: status {status}: {said!r}")
        self.stop()
        volume = self.image.path(self.image.volumes[0])
        made = {str(path.relative_to(self.image.root)) for path in self.image.root.rglob("*") if path.is_file()}
        outside = {path for path in made if not (self.image.root / path).is_relative_to(volume)}
        need(outside == {self.image.entrypoint[0].lstrip("/")}, f"besides the volume there is {sorted(outside)}")
        need((volume / "users.toml").is_file(), "the users are not in the volume")

    def finish(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.scratch, ignore_errors=True)


def main():
    image = Image()
    try:
        return run_checks([
            ("image: every step of the Dockerfile does what it says", image.walk),
            ("image: the build is the repository's, with its own toolchain", image.build_is_that_of_the_repository),
            ("image: labels, user, volume, ports and times agree with what they describe", image.description_is_true),
            ("image: the binary needs no library that the base lacks", image.binary_needs_nothing_else),
            ("image: it refuses to listen for others until there is a user", image.refuses_without_users),
            ("image: it serves on every exposed port as its own user and is healthy then", image.serves),
            ("image: the stop signal drains within an engine's patience", image.drains),
            ("image: what it was sent is in the volume and nothing anywhere else", image.keeps_its_data_in_the_volume),
        ])
    finally:
        image.finish()


if __name__ == "__main__":
    sys.exit(main())
