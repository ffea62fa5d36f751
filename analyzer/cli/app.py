"""All commands; each loads what it needs when it runs."""

from typing import Annotated

import typer

from analyzer.cli.analyze import analyze
from analyzer.cli.annotate import annotate
from analyzer.cli.demo import demo
from analyzer.cli.explain import explain
from analyzer.cli.kernels import kernels
from analyzer.cli.pairs import PairCommand
from analyzer.cli.probe import probe
from analyzer.cli.simulate import simulate
from analyzer.cli.whatif import whatif
from analyzer.version import KERNEL_MODEL, VERSION

app = typer.Typer(
    name="synquest",
    help="An inquest into SYNs that died: finds out from packet captures "
    "why connections through a load balancer time out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"synquest {VERSION} (kernel model {KERNEL_MODEL})")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


app.command(
    cls=PairCommand,
    epilog="Examples:\n\n"
    "synquest analyze --server server.pcap -o report\n\n"
    "synquest analyze --server server.pcap --netstat before.txt after.txt\n\n"
    "synquest analyze --server server.pcap.zst --sysctl-file sysctl.txt --backlog 128 -o report\n\n"
    "tcpdump -r old.pcap -w - tcp | synquest analyze --server - --kernel el7.9",
)(analyze)
app.command(epilog="Examples:\n\nsynquest kernels\n\nsynquest kernels 3.10 el7.9")(kernels)
app.command(
    epilog="Examples:\n\n"
    "synquest annotate --server server.pcap -o evidence.pcapng\n\n"
    "synquest annotate --lb lb.pcap --server server.pcap --all -o everything.pcapng"
)(annotate)
app.command(epilog="Example:\n\nsynquest explain --server server.pcap --frame 1234")(explain)
app.command(
    epilog="Examples:\n\nsynquest probe --tool systemtap --kernel el7.9 > peer_check.stp\n\n"
    "synquest probe --tool bpftrace --kernel 6.1 > syn_drops.bt"
)(probe)
app.command(
    epilog="Examples:\n\n"
    "synquest simulate --list\n\n"
    "synquest simulate cal-incident -o cal\n\n"
    "synquest simulate my.toml -o out --seed 7 --set path.to_server.loss_syn=0.1"
)(simulate)
app.command(epilog="Example:\n\nsynquest demo -o demo")(demo)
app.command(
    epilog="Examples:\n\n"
    "synquest whatif --server server.pcap --sysctl-file sysctl.txt --set tcp_tw_recycle=0\n\n"
    "synquest whatif --server server.pcap --set lb.hold_down=60 --set lb.source_ports=random\n\n"
    "synquest whatif --server server.pcap --set lb.timestamps=strip --set lb.share=0.5"
)(whatif)
