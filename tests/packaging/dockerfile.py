"""Reads a Dockerfile and a .dockerignore as far as ours go; whatever else stands there is an error, not passed over."""

import json
import re
import shlex
from fnmatch import translate
from pathlib import Path

from report import Wrong

KNOWN = {"FROM", "RUN", "WORKDIR", "COPY", "LABEL", "USER", "VOLUME", "ENV", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
         "ENTRYPOINT", "CMD"}


def steps(path):
    """(line number, instruction, rest), continuation lines joined and comments left out."""
    found, start, text = [], 0, ""
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if line.lstrip().startswith("#") or (not line.strip() and not text):
            continue
        start = start or number
        if line.endswith("\\"):
            text += line[:-1] + " "
            continue
        instruction, _, rest = (text + line).strip().partition(" ")
        if instruction not in KNOWN:
            raise Wrong(f"{path}:{start}: {instruction} is not known to this walk")
        found.append((start, instruction, rest.strip()))
        start, text = 0, ""
    return found


def words(text):
    """The exec form, which needs no shell."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError:
        raise Wrong(f"{text} is not in the exec form, so a shell would stand between the engine and the broker") from None
    return found


def pairs(text):
    return dict(word.split("=", 1) for word in shlex.split(text))


def options(text):
    """The leading --NAME=VALUE, and what follows them."""
    found = {}
    while match := re.match(r"--([a-z-]+)=(\S+)\s+", text):
        found[match[1]] = match[2]
        text = text[match.end():]
    return found, text


class Ignore:
    """A .dockerignore: the last pattern that matches a path or a folder above it decides."""

    def __init__(self, path):
        self.rules = []
        for line in Path(path).read_text().splitlines():
            line = line.strip()
            if line and not line.startswith("#"):
                kept = line.startswith("!")
                self.rules.append((kept, self.expression(line.lstrip("!").strip("/"))))

    @staticmethod
    def expression(pattern):
        parts = []
        for part in pattern.split("/"):
            # fnmatch's own ends are for whole texts; a star stays within its part.
            body = translate(part).removeprefix("(?s:").removesuffix(r")\Z").removesuffix(r")\z")
            parts.append("(?:.*/)?" if part == "**" else body.replace(".*", "[^/]*") + "/")
        return re.compile("".join(parts).rstrip("/"))

    def leaves_out(self, path):
        above = ["/".join(path.split("/")[:count]) for count in range(1, path.count("/") + 2)]
        out = False
        for kept, expression in self.rules:
            if any(expression.fullmatch(one) for one in above):
                out = not kept
        return out
