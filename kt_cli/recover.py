"""`ktctl recover`.

Not here: giving back (kt_net.session.clean).
"""

from __future__ import annotations

from typing import Annotated

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded


def recover(
    context: typer.Context,
    target: Annotated[str, typer.Argument(metavar="TARGET", help="svc/X, a plain name, deployment/X or statefulset/X")],
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
) -> None:
    """Give back what somebody has exchanged, at once, whether they live or not; also a KT Connect's."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("recover", given.form)
    raise typer.Exit(guarded(printer, given.debug, lambda: _recover(given, printer, target)))


def _recover(given: flags.Globals, printer: Printer, text: str) -> int:
    from kt_net.choreography.names import check_namespace
    from kt_net.errors import ProblemsFound
    from kt_net.forward.targets import parse_target
    from kt_net.kube.api import HttpKubeApi
    from kt_net.kube.config import load_cluster
    from kt_net.session.clean import recover as give_back

    target = parse_target(text)
    cluster = load_cluster(kubeconfig=given.kubeconfig, context=given.context, namespace=given.namespace)
    api = HttpKubeApi(cluster)
    try:
        found = give_back(api, check_namespace(cluster.namespace), target)
    finally:
        api.close()
    for line in found.done:
        printer.step(line)
    if found.failed:
        error = ProblemsFound(
            "not all could be removed", why="; ".join(found.failed), next_step="ask somebody who may remove those"
        )
        return printer.error(error, recovered=found.done, failed=found.failed)
    words = f"{target} is as it was" if found.done else f"nothing to give back: nobody has {target}"
    printer.result(words, recovered=found.done)
    return OK
