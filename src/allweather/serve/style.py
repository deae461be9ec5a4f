"""How the page looks: fonts of the visitor's own machine, colors with enough contrast, one column on a phone."""

import gradio as gr

FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif")
CODE = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")

CSS = """
.tab-container button.selected { color: #1d4ed8; } .dark .tab-container button.selected { color: #93c5fd; }
.min_value, .max_value, .or { color: var(--body-text-color) !important; }
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.aw-compare { position: relative; margin: 0; width: 100%; overflow: hidden; border-radius: 8px; touch-action: pan-y; }
.aw-compare img { position: absolute; inset: 0; width: 100%; height: 100%; object-fit: fill; }
.aw-compare .aw-over { clip-path: inset(0 0 0 var(--split)); }
.aw-compare input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ew-resize;
  touch-action: pan-y; }
.aw-compare .aw-bar { position: absolute; top: 0; bottom: 0; left: calc(var(--split) - 2px); width: 4px;
  background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.aw-compare .aw-bar::after { content: "\\2194"; position: absolute; top: 50%; left: 2px;
  transform: translate(-50%, -50%);
  background: #fff; color: #111; border-radius: 50%; width: 32px; height: 32px; line-height: 32px; text-align: center;
  box-shadow: 0 0 3px #000; }
.aw-compare:focus-within { outline: 3px solid #1d4ed8; outline-offset: 2px; }
.aw-tag { position: absolute; top: 8px; background: rgba(0,0,0,.75); color: #fff; padding: 2px 8px; border-radius: 4px;
  font-size: 14px; pointer-events: none; }
.aw-left { left: 8px; } .aw-right { right: 8px; }
.aw-single { margin: 0; } .aw-single img { width: 100%; border-radius: 8px; display: block; }
.aw-note { margin: 4px 0; color: var(--body-text-color); }
.aw-status { padding: 8px 12px; border-radius: 8px; border: 1px solid var(--border-color-primary);
  color: var(--body-text-color); }
#lost { position: sticky; top: 0; z-index: 10; margin: 8px; background: var(--body-background-fill); }
.aw-lost #status, #notice:not(:has([role=alert])) { display: none; }
.aw-status.aw-bad { border: 2px solid #b91c1c; }
.aw-status progress::-webkit-progress-bar { background: #cbd5e1; border-radius: 5px; }
.aw-status progress::-webkit-progress-value { background: #1d4ed8; border-radius: 5px; }
.aw-status progress::-moz-progress-bar { background: #1d4ed8; }
.aw-status progress { appearance: none; border: 0; width: 100%; height: 10px; display: block; margin-top: 6px; }
.aw-legend { width: 100%; border: 0 !important; border-collapse: collapse; font-size: 14px;
  color: var(--body-text-color); }
#fields > div:last-child { max-height: 480px; overflow-y: auto; }
.aw-legend caption { text-align: left; font-weight: 600; padding: 4px 0; }
.aw-legend th, .aw-legend td { padding: 2px 6px !important; border: 0 !important;
  border-bottom: 1px solid var(--border-color-primary) !important;
  text-align: right; font-weight: 400; }
.aw-legend th:first-child { text-align: left; }
.aw-legend tr { border: 0 !important; } .aw-legend thead th { font-weight: 600; }
.aw-swatch { display: inline-block; width: 14px; height: 14px; margin-right: 8px; vertical-align: -2px;
  border: 1px solid #555; }
.aw-curves figure { margin: 0 0 6px; } .aw-curves svg { width: 100%; height: auto; display: block; }
.aw-curves figcaption { font-weight: 600; color: var(--body-text-color); }
.aw-curves figcaption b { background: #fff; border-radius: 4px; padding: 0 4px; }
.aw-curves text { font-size: 12px; fill: var(--body-text-color); }
.aw-curves .aw-axis { fill: none; stroke: #6b7280; }
.aw-decided { list-style: none; padding: 0; margin: 0; display: flex; flex-wrap: wrap; gap: 4px 16px;
  color: var(--body-text-color); }
.aw-decided svg { width: 14px; height: 14px; display: inline-block; vertical-align: -2px; margin-right: 4px;
  background: #fff; border-radius: 3px; }
.aw-take { display: flex; flex-wrap: wrap; gap: 8px; }
.aw-take a { padding: 8px 14px; border-radius: 8px; background: #1d4ed8; color: #fff !important;
  text-decoration: none; }
.aw-take a:focus-visible { outline: 3px solid #f59e0b; outline-offset: 2px; }
@media (max-width: 640px) {
  .aw-curves text { font-size: 14px; } .aw-legend { font-size: 15px; }
  .aw-take a { flex: 1 1 45%; text-align: center; } }
"""

# The library's drop zone is called otherwise than it reads; without a name of its own it is called as it reads.
# And where the server ends, the page would go on saying that it adapts.
SCRIPT = """() => {
  const mend = () => document.querySelectorAll("button.upload-container[aria-label]")
    .forEach((button) => button.removeAttribute("aria-label"));
  mend();
  new MutationObserver(mend).observe(document.body, {childList: true, subtree: true});
  const said = Object.assign(document.createElement("div"), {id: "lost", className: "aw-status aw-bad", hidden: true});
  said.setAttribute("role", "alert");
  document.body.prepend(said);
  const look = async () => {
    const lost = !(await fetch("v1/health", {cache: "no-store"}).then(() => true, () => false));
    if (lost === said.hidden) {
      said.textContent = lost ? "The server has ended, or cannot be reached: nothing on this page goes on." : "";
      said.hidden = !lost;
      document.body.classList.toggle("aw-lost", lost);
    }
    setTimeout(look, 2000);
  };
  look();
}"""


def theme() -> gr.themes.Base:
    """The theme: no font is fetched from anywhere."""
    made = gr.themes.Base(
        primary_hue=gr.themes.colors.blue, neutral_hue=gr.themes.colors.slate, font=FONTS, font_mono=CODE
    )
    return made.set(
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_text_color="white",
        block_label_text_color="*neutral_700",
        block_info_text_color="*neutral_600",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color_dark="*neutral_200",
    )
