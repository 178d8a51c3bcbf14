"""`ktctl`: flags before the command's name, and the commands.

Each command has a file of its own; heavy imports happen inside them, so that `ktctl --help` is quick.

Not here: what the commands do.
"""

from __future__ import annotations

import os

import typer

from kt_cli import flags
from kt_cli.capture import capture
from kt_cli.clean import clean
from kt_cli.connect import connect
from kt_cli.disconnect import disconnect
from kt_cli.dns import dns
from kt_cli.doctor import doctor
from kt_cli.exchange import WithProgram, exchange
from kt_cli.forward import forward
from kt_cli.helper import app as helper
from kt_cli.logs import logs
from kt_cli.output import Printer
from kt_cli.preview import preview
from kt_cli.recover import recover
from kt_cli.status import status
from kt_cli.version import version

app = typer.Typer(
    name="ktctl",
    help="Make this machine part of a Kubernetes cluster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


#: Need no root: behind sudo they are the caller's, as the connection is that they speak with.
WITHOUT_ROOT = ("capture", "dns", "exchange", "forward", "logs", "preview", "recover", "status")


def _drop_root(command: str, given: flags.Globals) -> None:
    from kt_net.errors import KtError
    from kt_net.host.privilege import become_invoker

    try:
        become_invoker()
    except KtError as error:
        raise typer.Exit(Printer(command, given.form).error(error)) from error


@app.callback()
def before(
    context: typer.Context,
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    image: flags.Image = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Make this machine part of a Kubernetes cluster."""
    given = flags.Globals(kubeconfig, kube_context, namespace, image, output, debug)
    context.obj = given
    if context.invoked_subcommand in WITHOUT_ROOT and os.geteuid() == 0 and os.environ.get("SUDO_UID", "0") != "0":
        _drop_root(str(context.invoked_subcommand), given)


for command in (
    capture,
    clean,
    connect,
    disconnect,
    dns,
    doctor,
    forward,
    logs,
    preview,
    recover,
    status,
    version,
):
    app.command()(command)
app.command(cls=WithProgram)(exchange)
app.add_typer(helper)
