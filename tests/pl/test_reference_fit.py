from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from anndata import AnnData
from drawings import draw_reference_fit, make_samples
from matplotlib.colors import to_hex

from scdeconv import pl
from scdeconv.pl._style import VERMILION


def test_highest_genes_are_named_in_order():
    _, highest, _ = draw_reference_fit()
    names = [label.get_text() for label in highest.get_yticklabels()]
    assert len(names) == 15
    widths = [bar.get_width() for bar in highest.patches]
    assert widths == sorted(widths, reverse=True)
    assert [to_hex(bar.get_facecolor()) == VERMILION for bar in highest.patches] == [width > 3 for width in widths]


def test_title_counts_the_unexplained_genes():
    genes, *_ = draw_reference_fit()
    assert genes.get_title() == "5 of 200 genes\nare not explained"


def test_samples_are_sorted_by_their_share():
    *_, samples = draw_reference_fit()
    shares = samples.collections[0].get_offsets()[:, 0]
    assert list(shares) == sorted(shares, reverse=True)
    assert samples.get_yticklabels()[0].get_text() == "s8"


def test_missing_results_are_named():
    with pytest.raises(
        KeyError, match="Expected the result 'reference_fit' of tl.reference_fit in adata.varm.* Call tl.reference_fit"
    ):
        pl.reference_fit(make_samples(4, 2))
    with pytest.raises(KeyError, match="Expected the result 'x' of tl.reference_fit in adata.varm"):
        pl.reference_fit(AnnData(shape=(2, 3)), "x")


def test_two_axes_are_refused():
    _, axes = plt.subplots(1, 2)
    with pytest.raises(ValueError, match="Expected three axes, .* found 2"):
        draw_reference_fit(axes=axes)


def test_tables_of_another_content_are_refused():
    adata = make_samples(4, 2)
    adata.varm["reference_fit"] = pd.DataFrame({"a": 1.0}, adata.var_names)
    with pytest.raises(KeyError, match="found another table with this key"):
        pl.reference_fit(adata)
