"""A certificate as one web page, under the headings of a model card (Mitchell et al. 2019, arXiv 1810.03993)."""

import html
from collections.abc import Iterable
from typing import Any

from confprune_edu.certificates import plan_sha256
from confprune_edu.saved import Kept

PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font-family: sans-serif; line-height: 1.5; max-width: 46em; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; vertical-align: top; padding: 0.25em 0.8em 0.25em 0; overflow-wrap: anywhere; }}
th[scope=row] {{ width: 35%; }}
tr {{ border-bottom: 1px solid #8884; }}
img {{ max-width: 100%; background: white; }}
</style>
<h1>{title}</h1>
{claim}
<h2>Model details</h2>
{details}
<h2>Intended use</h2>
<p>Where inputs come from the law of the calibration examples{law}, run in the precision that was evaluated.</p>
<h2>Metrics</h2>
{metrics}
<h2>Evaluation data</h2>
{data}
<h2>Quantitative analyses</h2>
{picture}
{tensors}
<h2>Caveats: what the guarantee does not say</h2>
<ul>
<li>Nothing about examples from another law: other hospitals, other scanners, another year.</li>
<li>Nothing about a single example, nor about a group of them: risk is a mean over the law.</li>
<li>Nothing about how good the full network is, unless the loss compares with the truth.</li>
<li>Nothing where the examples were not fresh, or the plan was chosen after a look at their losses.</li>
<li>Whether the file was forged: checksums show changes, a signature shows who made it.</li>
</ul>
"""


def page(certificate: Any) -> str:
    """The model card of a certificate that `certificates.load` read, as HTML that needs nothing else.

    What training used and for whom the network is meant nobody recorded: add it where the card is shown.
    """
    about = certificate.saved
    title = html.escape(f"Certified pruned network: {about['network']}")
    low, high = (end / (certificate.importance or 1) for end in certificate.loss_range)
    details = {
        "network": about["network"],
        "date": about["date"] or "not given",
        **_pruning(certificate),
        "made with": ", ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "full network": certificate.model_sha256 or "not recorded",
    }
    metrics = {
        "loss": f"{certificate.loss}, from {low:g} to {high:g}",
        "alpha, the tolerated risk": f"{certificate.alpha:g}",
        "delta, the tolerated chance of a false claim": f"{certificate.delta:g}",
        "p-values": certificate.p_value,
        "procedure": certificate.procedure,
        "grid": f"{len(certificate.ratios)} ratios from {certificate.ratios[0]:g} to {certificate.ratios[-1]:g}",
    }
    if plan := about.get("plan"):
        metrics |= {"plan, fingerprint": plan_sha256(plan)}
        metrics |= {f"plan: {name}": value for name, value in plan.items() if not hasattr(certificate, name)}
    data = {
        "n": f"{certificate.n:,} examples; the guarantee holds if they were fresh and their order fixed before",
        "seed": "none was used" if certificate.seed is None else certificate.seed,
        "fingerprint, order included": certificate.data_sha256 or "could not be read",
    }
    family = certificate.knob is not None
    kept = {name: Kept(*about["tensors"][name]) for name in (about["tensors"] if family else about["prunable"])}
    rows = [(name, "x".join(map(str, k.shape)), k.dtype, f"{k.zeros:,}") for name, k in kept.items()]
    return PAGE.format(
        title=title,
        claim=certificate._repr_html_(),
        details=_table(details.items()),
        law="" if certificate.importance is None else ", weighted as the certificate says",
        metrics=_table(metrics.items()),
        data=_table(data.items()),
        picture=certificate.plot()._repr_mimebundle_()["text/html"],
        tensors=_table(rows, head=("tensor" if family else "prunable weight", "shape", "dtype", "zeros")),
    )


def _pruning(certificate: Any) -> dict[str, str]:
    """What was done to the full network, and how much of it that is about."""
    about, criterion = certificate.saved, certificate.criterion + (", then finished" if certificate.finished else "")
    pair = {"threshold": f"{certificate.thresholds[about['pair'][1]]:g}"} if "pair" in about else {}
    if certificate.knob is not None:
        sizes = "{1:,} of the full network's {0:,}".format(*certificate.parameters or (0, 0))
        counted = {"parameters": sizes} if certificate.parameters else {}
        return {certificate.knob: f"{certificate.saved_ratio():g}", **pair, **counted, "family": criterion}
    extent = f"{certificate.prunable:,} of {certificate.matrix:,}" if certificate.prunable else "not recorded"
    return {
        "pruned to": f"{certificate.saved_ratio():g} of the prunable weights",
        **pair,
        "prunable": f"{extent} matrix weights; {certificate.zeros or 0:,} were zero before",
        "criterion": criterion,
    }


def _table(rows: Iterable[Iterable[Any]], head: Iterable[str] = ()) -> str:
    """Rows as an HTML table; the first cell of a row names it."""
    lines = ["<tr>" + "".join(f'<th scope="col">{cell}</th>' for cell in head) + "</tr>"] if head else []
    for name, *cells in rows:
        body = "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{html.escape(str(name))}</th>{body}</tr>')
    return f"<table>{''.join(lines)}</table>"
