"""The part of an evaluation's report on whole volumes."""

import html
import math

from ambdiff.evaluation.volumes import Scores
from ambdiff.pages.case import number

# (key, heading, what it says).
SHOWN = (
    ('ged', 'GED', 'a volume as one mask'),
    ('ged_ideal', 'Ideal GED', 'what marking exactly as the raters do would get, by chance alone'),
    ('hm_iou', 'HM-IoU', 'higher is better'),
    (
        'volume_crps_mm3',
        'CRPS of the volume, mm³',
        'the samples’ volumes against the raters’, as distributions',
    ),
    ('hd95_mm', 'HD95, mm', 'a sample’s surface from a rater’s, 95th percentile'),
    ('hd95_raters_mm', 'HD95 of two raters, mm', ''),
    ('assd_mm', 'ASSD, mm', 'a sample’s surface from a rater’s, mean of both directions'),
    ('assd_raters_mm', 'ASSD of two raters, mm', ''),
)


def section(found: Scores) -> str:
    """A table of what the volumes score, in mm where that is known, and why a figure is not there."""
    rows, why = '', ''
    for key, title, note in SHOWN:
        mean, error = found.means[key], found.errors[key]
        value = f'{number(mean)}<small>± {number(error)}</small>' if math.isfinite(mean) else '–'
        rows += f'<tr><th scope="row">{title}<small>{note}</small></th><td>{value}</td></tr>'
        if key in found.undefined:
            why += f'<li>{title}: {html.escape(found.undefined[key])}.</li>'
    return f"""<section><h2 id="volumes">Volumes</h2>
<p class="read">The slices of a case together, {len(found.names)} volumes. Slices in which no rater marked anything are
not among them, so what would be marked there is not counted. per_volume.csv has every figure of each.</p>
<div class="wide" tabindex="0" role="region" aria-label="Volumes"><table>
<thead><tr><th scope="col"></th><th scope="col">Mean over volumes</th></tr></thead><tbody>{rows}</tbody></table></div>
{f'<ul class="read">{why}</ul>' if why else ''}</section>"""
