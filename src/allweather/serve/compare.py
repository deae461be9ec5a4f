"""The source's prediction and the adapted one, one over the other, with a slider that keys move as well."""

from allweather.serve.visitor import Visitor

# Where the slider stands outlives the picture: the next one begins there.
_MOVE = "window.awSplit=this.value;this.closest('.aw-compare').style.setProperty('--split',this.value+'%')"
_TAKE_UP = (
    "const f=this.closest('.aw-compare'),r=f.querySelector('input');"
    "if(window.awSplit!==undefined){r.value=window.awSplit;f.style.setProperty('--split',r.value+'%')}"
)


def compare(visitor: Visitor | None) -> str:
    """HTML of the slider, or of the picture that is to be adapted to."""
    if visitor is None or not (pictures := visitor.pictures):
        return '<p class="aw-note">Choose a picture, a clip or a scene: it is shown here.</p>'
    shown = visitor.shown
    width, height = (shown.picture if shown else pictures[0]).on_page
    shape = f"aspect-ratio:{width}/{height};max-width:calc(80vh*{width}/{height})"  # a tall one fits on the screen
    if shown is None:
        return (
            f'<figure class="aw-single" style="{shape}"><img alt="The picture that is to be adapted to" '
            f'src="see/{visitor.key}/picture.jpg?{visitor.version}"></figure>'
        )
    address = f"see/{visitor.key}/{{}}.jpg?{visitor.version}"
    return (
        f'<figure class="aw-compare" style="--split:50%;{shape}">'
        f'<img alt="Prediction of the network as it came" src="{address.format("source")}">'
        f'<img class="aw-over" alt="Prediction of the adapted network" src="{address.format("adapted")}" '
        f'onload="{_TAKE_UP}">'
        '<span class="aw-tag aw-left" aria-hidden="true">source</span>'
        '<span class="aw-tag aw-right" aria-hidden="true">adapted</span><span class="aw-bar" aria-hidden="true"></span>'
        f'<input type="range" min="0" max="100" value="50" aria-label="Border between source (left) and adapted" '
        f'oninput="{_MOVE}"></figure>'
    )
