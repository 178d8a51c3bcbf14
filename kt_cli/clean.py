"""`ktctl clean`.

Not here: cleaning (kt_net.session.clean; of this machine, the host helper).
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from kt_cli import flags
from kt_cli.exits import OK
from kt_cli.output import Printer
from kt_cli.running import guarded


def clean(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", "--dryRun", help="only say what would be done")] = False,
    threshold: Annotated[
        int,
        typer.Option(
            "--threshold",
            "--thresholdInMinus",
            metavar="MINUTES",
            min=1,
            max=100_000,
            help="without a heart beat a KT Connect's objects are nobody's after; ours are judged by their Leases",
        ),
    ] = 5,
    local_only: Annotated[
        bool, typer.Option("--local-only", "--localOnly", help="only this machine, not the cluster")
    ] = False,
    every: Annotated[bool, typer.Option("--all-namespaces", "-A", help="in all namespaces")] = False,
    kubeconfig: flags.Kubeconfig = None,
    kube_context: flags.Context = None,
    namespace: flags.Namespace = None,
    output: flags.Output = None,
    debug: flags.Debug = False,
    state_dir: flags.StateDir = None,
) -> None:
    """Put right what clients that are gone have left, in the cluster and on this machine; also a KT Connect's."""
    given = flags.of(context).merged(
        kubeconfig=kubeconfig, context=kube_context, namespace=namespace, output=output, debug=debug
    )
    given.set_up_logging()
    printer = Printer("clean", given.form)

    def run() -> int:
        local = _clean_machine(printer, state_dir, dry_run=dry_run)
        found = {} if local_only else _clean_cluster(given, printer, every=every, dry_run=dry_run, minutes=threshold)
        return _say(printer, local, found, dry_run=dry_run)

    raise typer.Exit(guarded(printer, given.debug, run))


def _clean_machine(printer: Printer, state_dir: str | None, *, dry_run: bool) -> list[str]:
    from kt_net.host.client import leftovers

    state = flags.state_folder(state_dir)
    if dry_run:
        return ["what a connection that was killed left on this machine would be undone"] if leftovers(state) else []
    return flags.restore_machine(state, printer.step)


def _clean_cluster(
    given: flags.Globals, printer: Printer, *, every: bool, dry_run: bool, minutes: int
) -> dict[str, Any]:
    from kt_net.choreography.names import check_namespace
    from kt_net.host.privilege import become_invoker
    from kt_net.kube.api import HttpKubeApi
    from kt_net.kube.config import load_cluster
    from kt_net.session.clean import Cleaner

    become_invoker()  # this machine is done; the kubeconfig, and the programs that it names, are the caller's
    cluster = load_cluster(kubeconfig=given.kubeconfig, context=given.context, namespace=given.namespace)
    api = HttpKubeApi(cluster)
    namespace = None if every else check_namespace(cluster.namespace)
    cleaner = Cleaner(api, namespace, threshold=60.0 * minutes, wait=time.sleep, progress=printer.step)
    try:
        found = cleaner.clean(dry_run=dry_run)
    finally:
        api.close()
    for line in found.unread:
        printer.step(line)
    done = [
        {"object": one.what, "namespace": one.namespace, "why": one.why, "inverse": one.inverse} for one in found.done
    ]
    would = "would be " if dry_run else ""
    for one in done:
        printer.step(f"{one['object']} in {one['namespace']}: {would}{one['inverse']} ({one['why']})")
    return {"cleaned": done, "failed": found.failed, "live": found.live, "unread": found.unread}


def _say(printer: Printer, local: list[str], found: dict[str, Any], *, dry_run: bool) -> int:
    from kt_net.errors import ProblemsFound

    if found.get("failed"):
        for line in found["failed"]:
            printer.step(line)
        error = ProblemsFound(
            f"{len(found['failed'])} could not be put right",
            why=found["failed"][0],
            next_step="ask somebody who may, or look at each of them with kubectl",
        )
        return printer.error(error, local=local, dry_run=dry_run, **found)
    number = len(found.get("cleaned", ())) + len(local)
    words = f"{number} {'would be put right' if dry_run else 'put right'}" if number else "nothing is left of anybody"
    printer.result(words, local=local, dry_run=dry_run, **found)
    return OK
