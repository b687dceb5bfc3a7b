"""Notes: keep, find, list and drop short texts, which are also resources under note://.

Contract: keeps everything in memory, bounded, and loses it when the process ends. `server` is the `python:` target;
all connections of one process share its notes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gatewright.demo_servers.server import (
    Json,
    Progress,
    Prompt,
    Server,
    Tool,
    ToolError,
    UnknownResourceError,
    text_argument,
)

MAX_NOTES = 1_000
MAX_NOTE_CHARS = 16_384

_WELCOME = (
    "Everything you see here came through Gatewright: this server runs inside the gateway's own process, the clock "
    "beside it too, and the files come from a child process. One address, three servers."
)


@dataclass(frozen=True, slots=True)
class Note:
    """One note; its number is its address."""

    number: int
    title: str
    text: str

    @property
    def uri(self) -> str:
        return f"note://{self.number}"


@dataclass(slots=True)
class Notebook:
    """The notes, by number; also the resources of the server."""

    notes: dict[int, Note] = field(default_factory=dict)
    last_number: int = 0

    def keep(self, title: str, text: str) -> Note:
        """A new note. Raises `ToolError` when the notebook is full."""
        if len(self.notes) >= MAX_NOTES:
            raise ToolError(f"the notebook is full ({MAX_NOTES} notes); drop one first")
        self.last_number += 1
        note = Note(self.last_number, title, text)
        self.notes[note.number] = note
        return note

    def search(self, words: str) -> list[Note]:
        """Notes that contain every word, in title or text, newest first."""
        wanted = words.casefold().split()
        found = [n for n in self.notes.values() if all(w in f"{n.title}\n{n.text}".casefold() for w in wanted)]
        return found[::-1]

    def listed(self) -> list[Json]:
        return [
            {"uri": note.uri, "name": f"note-{note.number}", "title": note.title, "mimeType": "text/plain"}
            for note in self.notes.values()
        ]

    def templates(self) -> list[Json]:
        template = {"uriTemplate": "note://{number}", "name": "note", "title": "A note by its number"}
        return [template | {"mimeType": "text/plain"}]

    def read(self, uri: str) -> Json:
        number = uri.removeprefix("note://")
        note = self.notes.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
        if note is None or note.uri != uri:
            raise UnknownResourceError(uri)
        return {"mimeType": "text/plain", "text": f"{note.title}\n\n{note.text}"}


def _lines(notes: list[Note]) -> str:
    return "\n".join(f"{note.uri}  {note.title}" for note in notes) or "No notes."


@dataclass(frozen=True, slots=True)
class Desk:
    """What can be done with a notebook: the `run` of each tool, and the text of the prompt."""

    book: Notebook

    async def keep(self, arguments: Json, progress: Progress) -> str:
        title = text_argument(arguments, "title", max_chars=200)
        note = self.book.keep(title, text_argument(arguments, "text", max_chars=MAX_NOTE_CHARS))
        return f"Kept as {note.uri}."

    async def search(self, arguments: Json, progress: Progress) -> str:
        return _lines(self.book.search(text_argument(arguments, "words", max_chars=200)))

    async def list(self, arguments: Json, progress: Progress) -> str:
        return _lines([*self.book.notes.values()])

    async def drop(self, arguments: Json, progress: Progress) -> str:
        uri = text_argument(arguments, "uri", max_chars=64)
        number = next((note.number for note in self.book.notes.values() if note.uri == uri), None)
        if number is None:
            raise ToolError(f"there is no note {uri}")
        return f"Dropped {self.book.notes.pop(number).title!r}."

    def digest(self, arguments: Mapping[str, str]) -> str:
        found = self.book.search(arguments.get("words", ""))
        body = "\n\n".join(f"## {note.title}\n{note.text}" for note in found)
        return f"Summarise these notes in at most five sentences.\n\n{body}"


def tools(desk: Desk) -> tuple[Tool, ...]:
    """The tools of a desk."""
    return (
        Tool(
            name="keep",
            title="Keep a note",
            description="Keep a short text under a title.",
            properties={"title": {"type": "string"}, "text": {"type": "string"}},
            required=("title", "text"),
            is_read_only=False,
            run=desk.keep,
        ),
        Tool(
            name="search",
            title="Search notes",
            description="Find notes by words in their title or text.",
            properties={"words": {"type": "string", "description": "every one of these words must occur"}},
            required=("words",),
            run=desk.search,
        ),
        Tool(name="list", title="List notes", description="All notes, oldest first.", properties={}, run=desk.list),
        Tool(
            name="drop",
            title="Drop a note",
            description="Forget one note.",
            properties={"uri": {"type": "string", "description": "such as note://1"}},
            required=("uri",),
            is_read_only=False,
            run=desk.drop,
        ),
    )


def build() -> Server:
    """A new server with a notebook of its own, which holds one note of welcome."""
    desk = Desk(Notebook())
    desk.book.keep("Welcome", _WELCOME)
    return Server(
        name="notes",
        title="Notes",
        version="1.0.0",
        instructions="Keep short notes and find them again. They last as long as the gateway runs.",
        resources=desk.book,
        prompts=[
            Prompt(
                name="digest",
                title="Summarise notes",
                description="Summarise the notes that contain some words, or all of them.",
                arguments=({"name": "words", "description": "every one must occur", "required": False},),
                render=desk.digest,
            )
        ],
        tools=tools(desk),
    )


server = build()
