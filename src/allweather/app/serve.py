"""`allweather serve`: a page to see adaptation at work and an HTTP endpoint, from one server."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from allweather import serve as room
from allweather.app.console import SOME_FAILED, narration, plain
from allweather.app.flags import (
    Channels,
    Classes,
    Device,
    ModelArguments,
    RandomWeights,
    Seed,
    Sha256,
    Weights,
)  # fmt: skip
from allweather.app.opening import frame_size, open_network
from allweather.app.options import network_options, parse_settings
from allweather.methods.settings import parse_fields
from allweather.serve.access import choose_token
from allweather.serve.limits import Limits

TOKEN = "ALLWEATHER_TOKEN"
EXAMPLE = "allweather serve --model espnetv2:2.0 --weights FILE"


def serve(
    model: Annotated[
        str, typer.Option(help="The network, as in `adapt`; the shipped one is always offered beside it.")
    ] = "demo:streetnet",
    weights: Weights = None,
    sha256: Sha256 = None,
    random_weights: RandomWeights = False,
    model_arg: ModelArguments = None,
    classes: Classes = None,
    mean: Channels = None,
    std: Channels = None,
    method: Annotated[
        str, typer.Option(help="Where a visitor names none; of `allweather list methods`.")
    ] = "mall-domain",
    size: Annotated[
        str | None,
        typer.Option(metavar="WIDTHxHEIGHT", help="Resample pictures to this before the network; 'native' keeps each."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine a token is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    allow_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Let visitors name checkpoints and pictures of this folder.")
    ] = None,
    sessions: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep streams' sessions here when they are idle or it stops.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Pictures that are worked on at once.")] = 1,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A bound, such as waiting=32; repeatable; see the page on serving."),
    ] = None,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Serve a page to see adaptation at work, and an HTTP endpoint: POST /v1/predict, /docs, /metrics.

    The token comes from the variable ALLWEATHER_TOKEN; beyond this machine one is made where it is not set, and said
    here. Ctrl-C or SIGTERM ends it: requests that were taken are answered, and streams are saved with --sessions;
    the status is 1 where one could not be. A second Ctrl-C leaves requests unanswered, and saves the streams too.
    """
    room.check_libraries()
    from allweather.serve.assembly import build
    from allweather.serve.networks import Offer, shipped
    from allweather.serve.shutdown import run

    limits = Limits(**parse_fields(Limits, parse_settings(limit or [], "--limit", "NAME"), "limits"))
    given = os.environ.get(TOKEN) or None
    token = choose_token(host, given)
    chosen = frame_size(size, model)
    network = open_network(
        model, weights, device, network_options(model_arg, classes, mean, std),
        sha256=sha256, random_weights=random_weights, seed=seed,
    )  # fmt: skip
    offers = [Offer(network.name, lambda: network, chosen)]
    offers += [shipped()] if network.name != shipped().name else []
    app = build(
        offers, method=method, limits=limits, host=host, token=token, allowed=allow_dir, sessions=sessions,
        workers=workers,
    )  # fmt: skip
    run(app, host, port, partial(_tell, token if given is None else None))
    if app.state.serving.unsaved:
        raise typer.Exit(SOME_FAILED)


def _tell(made: str | None, address: str) -> None:
    """Says where the server is, and the token that was made for it."""
    narration.print(f"[bold]{plain(address)}[/] — API: {plain(address)}/docs; Ctrl-C ends it")
    if made:
        narration.print(f"the token, for this run: {plain(address)}/?token={plain(made)}")
