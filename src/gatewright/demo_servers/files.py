"""Files: list, read and search the text files below one folder, as a child process.

    python -m gatewright.demo_servers.files FOLDER

Contract: an MCP server on stdin and stdout, one message per line. Reads only, and only below FOLDER: a path is
resolved, links included, before it is opened, and refused when it leads out. Ends when stdin does.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from gatewright.demo_servers.server import (
    Json,
    Progress,
    Server,
    Tool,
    ToolError,
    UnknownResourceError,
    text_argument,
)

MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 1_000
MAX_HITS = 100
MAX_LINE_BYTES = 10 << 20

_SCHEME = "demo:///"


class Folder:
    """The text files below one folder; also the resources of the server. Names are relative, with `/`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def names(self) -> list[str]:
        """Every file below the folder, sorted, at most `MAX_FILES`."""
        found = (path for path in sorted(self.root.rglob("*")) if path.is_file() and self._is_inside(path))
        return [path.relative_to(self.root).as_posix() for path, _ in zip(found, range(MAX_FILES), strict=False)]

    def text(self, name: str) -> str:
        """The text of one file. Raises `ToolError` when it is not below the folder, too large or not text."""
        path = self.root / name
        try:
            if not self._is_inside(path) or not path.is_file():
                raise ToolError(f"there is no file {name!r} here")
            with path.resolve().open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except (OSError, ValueError):
            raise ToolError(f"{name!r} cannot be read") from None
        if len(data) > MAX_FILE_BYTES:
            raise ToolError(f"{name!r} is larger than {MAX_FILE_BYTES} bytes")
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise ToolError(f"{name!r} is not text") from None

    def _is_inside(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self.root)

    def listed(self) -> list[Json]:
        return [{"uri": _SCHEME + name, "name": name, "mimeType": "text/plain"} for name in self.names()]

    def templates(self) -> list[Json]:
        return [{"uriTemplate": _SCHEME + "{+name}", "name": "file", "title": "A file by its name"}]

    def read(self, uri: str) -> Json:
        if not uri.startswith(_SCHEME):
            raise UnknownResourceError(uri)
        try:
            return {"mimeType": "text/plain", "text": self.text(uri.removeprefix(_SCHEME))}
        except ToolError:
            raise UnknownResourceError(uri) from None


@dataclass(frozen=True, slots=True)
class Reader:
    """What can be done with a folder: the `run` of each tool."""

    folder: Folder

    async def list(self, arguments: Json, progress: Progress) -> str:
        return "\n".join(self.folder.names()) or "No files."

    async def read(self, arguments: Json, progress: Progress) -> str:
        return self.folder.text(text_argument(arguments, "name", max_chars=1_024))

    async def grep(self, arguments: Json, progress: Progress) -> str:
        wanted = text_argument(arguments, "text", max_chars=200).casefold()
        if not wanted:
            raise ToolError("text must not be empty")
        hits: list[str] = []
        for name in self.folder.names():
            try:
                lines = self.folder.text(name).splitlines()
            except ToolError:
                continue  # not text, or too large to search
            hits += [f"{name}:{n}: {line}" for n, line in enumerate(lines, 1) if wanted in line.casefold()]
            if len(hits) > MAX_HITS:
                return "\n".join([*hits[:MAX_HITS], "... and more"])
        return "\n".join(hits) or "Nothing found."


def build(root: Path) -> Server:
    """A server of the files below `root`."""
    reader = Reader(Folder(root))
    name = {"type": "string", "description": "as the list tool shows it"}
    return Server(
        name="files",
        title="Files",
        version="1.0.0",
        instructions="Read and search the text files of one folder.",
        resources=reader.folder,
        tools=[
            Tool(name="list", title="List files", description="Names of all files.", properties={}, run=reader.list),
            Tool(
                name="read",
                title="Read a file",
                description="The text of one file.",
                properties={"name": name},
                required=("name",),
                run=reader.read,
            ),
            Tool(
                name="grep",
                title="Search files",
                description="Lines that contain a text, whatever its case.",
                properties={"text": {"type": "string"}},
                required=("text",),
                run=reader.grep,
            ),
        ],
    )


async def _lines() -> AsyncIterator[bytes]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MAX_LINE_BYTES)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    try:
        async for line in reader:
            if stripped := line.strip():
                yield stripped
    finally:
        transport.close()


def _send(message: bytes) -> None:
    sys.stdout.buffer.write(message + b"\n")
    sys.stdout.buffer.flush()


def main(arguments: list[str]) -> int:
    """Serve until stdin ends. Exit code 2 when FOLDER is missing."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        sys.stderr.write("usage: python -m gatewright.demo_servers.files FOLDER\n")
        return 2
    try:
        asyncio.run(build(Path(arguments[0])).serve_messages(_lines(), _send))
    except (KeyboardInterrupt, BrokenPipeError):
        return 0  # the gateway went away, or Ctrl-C reached the whole terminal
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
