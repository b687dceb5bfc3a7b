"""The `gatewright` command.

Contract: parses arguments and hands over to one function per command; no logic of its own. Exit codes: 0 success, 1 a
failure while running, 2 a wrong configuration or command line (nothing was bound or started).
"""

from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from gatewright.cli import check as checking
from gatewright.cli import connect as connecting
from gatewright.cli import demo as demonstration
from gatewright.cli import serve as serving
from gatewright.cli import stdio as speaking
from gatewright.cli.report import CommandError, say, warn
from gatewright.config import MAX_WORKERS, LogLevel

_EPILOG = "Exit codes: 0 success, 1 failure while running, 2 wrong configuration or command line."

app = typer.Typer(
    name="gatewright",
    help="One gateway between AI hosts and many MCP servers.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # its tracebacks show local variables, and those hold secrets
)

_File = Annotated[
    Path, typer.Argument(metavar="FILE", help="gatewright.yaml, or an MCP client's JSON with mcpServers or servers.")
]
_Listen = Annotated[
    str | None, typer.Option("--listen", metavar="ADDR", help="HOST:PORT, :PORT (every interface) or PORT (loopback).")
]

_LogLevel = Annotated[LogLevel | None, typer.Option("--log-level", help="Instead of the configuration's log.level.")]


def _version(wanted: bool) -> None:
    if wanted:
        say(f"gatewright {version('gatewright')}")
        raise typer.Exit


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """One gateway between AI hosts and many MCP servers."""


@app.command(epilog=_EPILOG)
def serve(
    file: _File = Path("gatewright.yaml"),
    listen: _Listen = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=MAX_WORKERS, metavar="N", help="Processes; more than 1 need Redis."),
    ] = None,
    log_level: _LogLevel = None,
) -> None:
    """Run the gateway until Ctrl-C or SIGTERM."""
    serving.serve(file, listen, log_level, workers)


@app.command(epilog=_EPILOG)
def stdio(
    file: _File = Path("gatewright.yaml"),
    backend: Annotated[
        str | None, typer.Option("--backend", metavar="NAME", help="Serve only this one, its names as they are.")
    ] = None,
    log_level: _LogLevel = None,
) -> None:
    """Serve one local host over standard input and output: for the host's configuration to start."""
    speaking.stdio(file, backend, log_level)


@app.command(epilog=_EPILOG)
def connect(
    url: Annotated[str, typer.Argument(metavar="URL", help="Its MCP endpoint, for example https://gateway/mcp.")],
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", metavar="'NAME: VALUE'", help="Sent with every request; ${VAR} in it expands. Repeatable."
        ),
    ] = None,
    tls_ca: Annotated[
        str | None, typer.Option("--tls-ca", metavar="FILE", help="PEM file of the authorities to trust.")
    ] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Accept any certificate.")] = False,
    sse: Annotated[bool, typer.Option("--sse", help="It speaks the HTTP+SSE transport of 2024-11-05.")] = False,
    wait: Annotated[
        float, typer.Option("--wait", min=0, max=3600, metavar="SECONDS", help="Keep trying to reach it for so long.")
    ] = 15.0,
    log_level: Annotated[LogLevel, typer.Option("--log-level", help="What is written to stderr.")] = "warning",
) -> None:
    """Bridge a stdio-only host to a remote gateway or MCP server."""
    connecting.connect(
        connecting.Options(
            url=url,
            headers=tuple(header or ()),
            tls_ca=tls_ca,
            is_insecure=insecure,
            is_sse=sse,
            wait_s=wait,
            log_level=log_level,
        )
    )


@app.command(epilog=_EPILOG)
def demo(
    once: Annotated[bool, typer.Option("--once", help="End after the answer; exit code 1 if there was none.")] = False,
    listen: _Listen = None,
) -> None:
    """See it work: three servers behind one address, and a real call."""
    demonstration.demo(listen, once=once)


@app.command(epilog=_EPILOG)
def check(
    file: _File = Path("gatewright.yaml"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of YAML.")] = False,
) -> None:
    """Validate a configuration and print what is in force, secrets masked."""
    checking.check(file, as_json=as_json)


@app.command(epilog=_EPILOG)
def schema() -> None:
    """Print the JSON Schema of the configuration file."""
    checking.print_schema()


def main() -> None:
    """Run the command line and exit."""
    try:
        app()
    except CommandError as error:
        warn(str(error))
        raise SystemExit(error.exit_code) from None
