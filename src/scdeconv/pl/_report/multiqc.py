"""Files that MultiQC shows in its report: custom content in JSON, recognised by the end of its name.

See https://docs.seqera.io/multiqc/custom_content.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from scdeconv._version import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .estimate import Estimate

# MultiQC shows files with the same parent together
PARENT = {
    "parent_id": "scdeconv",
    "parent_name": "scdeconv",
    "parent_description": "Cell-type fractions of bulk RNA-seq.",
}
FRACTIONS, QUALITY = "fractions_mqc.json", "quality_mqc.json"


def multiqc_files(estimate: Estimate, summary: str, colors: Mapping[Any, str]) -> dict[str, str]:
    """Return the text of each file, by the end of its name.

    Parameters
    ----------
    estimate
        The estimate.
    summary
        Description of the sections.
    colors
        Colour of each cell type.
    """
    kind = "RNA" if estimate.record.get("fraction_kind") == "rna" else "cell"
    known = estimate.fractions.dropna()
    fractions = {
        "id": "scdeconv_fractions",
        "section_name": "Cell-type fractions",
        "description": summary,
        "plot_type": "bargraph",
        "pconfig": {
            "id": "scdeconv_fractions_plot",
            "title": "scdeconv: cell-type fractions",
            "ylab": f"{kind} fraction",
            "ymin": 0,
            "ymax": 1,
            "cpswitch": False,
            "tt_decimals": 3,
        },
        "categories": {str(name): {"name": str(name), "color": colors[name]} for name in known},
        "data": {
            str(sample): dict(zip(map(str, known), values, strict=True))
            for sample, values in zip(known.index, known.to_numpy(dtype=float).round(6).tolist(), strict=True)
        },
    }
    rows = {str(sample): {"flags": flag or "none"} for sample, flag in estimate.flags_of_samples().items()}
    for sample, measures in estimate.measures.iterrows():
        rows[str(sample)] |= {
            str(name): round(float(value), 4) for name, value in measures.items() if np.isfinite(value)
        }
    quality = {
        "id": "scdeconv_quality",
        "section_name": "Quality of the fractions",
        "description": f"Samples with a flag should be read with care. Written by scdeconv {__version__}.",
        "plot_type": "table",
        "pconfig": {"id": "scdeconv_quality_table", "title": "scdeconv: quality"},
        "headers": {
            "flags": {"title": "Flags"},
            **{str(name): {"title": str(name).capitalize(), "min": 0} for name in estimate.measures},
        },
        "data": rows,
    }
    contents = {FRACTIONS: fractions, QUALITY: quality}
    return {name: json.dumps({**PARENT, **content}, indent=1, ensure_ascii=False) for name, content in contents.items()}
