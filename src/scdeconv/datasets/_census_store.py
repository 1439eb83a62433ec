"""Reading of a CELLxGENE Census: a SOMA collection, public or local."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from scdeconv._data.checks import examples
from scdeconv._data.checks.arguments.rules import nearest

from ._cell_sampling import CELL

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

# columns that describe a chosen cell, as far as the Census has them
FURTHER = (
    "cell_type_ontology_term_id",
    "development_stage",
    "disease",
    "self_reported_ethnicity",
    "sex",
    "tissue",
    "tissue_general",
)
STUDY = ("dataset_id", "collection_name", "collection_doi", "dataset_title")
# counts are read for so many cells at once: about 100 MB
CELLS_PER_BLOCK = 4000


@dataclass(frozen=True)
class Release:
    """A Census: its version (a date), or the location of a copy."""

    version: str
    uri: str | None = None

    def __str__(self) -> str:
        return f"release {self.version} of the Census" if self.uri is None else f"the Census in {self.uri}"


def require(name: str) -> Any:
    """Return a module of the extra ``census``."""
    try:
        return import_module(name)
    except ImportError:
        msg = (
            f"Expected the package {name} to read cells from the CELLxGENE Census, found no installation. Run: "
            "pip install 'scdeconv[census]'."
        )
        raise ImportError(msg) from None


def date_of(alias: str) -> str:
    """Return the date of the release that is now ``"stable"`` or ``"latest"``."""
    package = require("cellxgene_census")
    with _problems_named(Release(alias)):
        return str(package.get_census_version_description(alias)["release_build"])


class Store:
    """An open Census.

    Parameters
    ----------
    census
        The SOMA collection.
    organism
        Name of its experiment, such as ``"homo_sapiens"``.
    release
        For messages.
    """

    def __init__(self, census: Any, organism: str, release: Release) -> None:
        missing = [name for name in ("census_info", "census_data") if name not in census]
        if missing:
            msg = f"Expected {examples(missing)} in {release}, found {examples(census.keys())}. Pass the location of a Census."
            raise ValueError(msg)
        self.release, self.info = release, census["census_info"]
        organisms = list(census["census_data"].keys())
        if organism not in organisms:
            msg = f"Expected {organism!r} in {release}, found {examples(organisms)}. Pass another organism."
            raise ValueError(msg)
        experiment = census["census_data"][organism]
        self.obs, self.measurement = experiment.obs, experiment.ms["RNA"]

    @property
    def date(self) -> str | None:
        """Date on which the Census was built, from its summary; None without summary."""
        if "summary" not in self.info:
            return None
        summary = self.info["summary"].read(column_names=["label", "value"]).concat().to_pandas()
        found = summary.loc[summary["label"] == "census_build_date", "value"]
        return str(found.iloc[0]) if len(found) else None

    def values(self, column: str) -> list[str]:
        """Return the different values of a column of ``obs``."""
        found: set[str] = set()
        for table in self.obs.read(column_names=[column]):
            found.update(table.column(column).unique().to_pylist())
        return sorted(found)

    def read_annotation(self, value_filter: str, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield the annotation of cells in blocks."""
        missing = [column for column in columns if column not in self.obs.schema.names]
        if missing:
            msg = (
                f"Expected the columns {examples(missing, 9)} in {self.release}, found no such columns. Pass a release "
                "of 2024-07-01 or later."
            )
            raise ValueError(msg)
        for table in self.obs.read(column_names=list(columns), value_filter=value_filter):
            yield table.to_pandas()

    def describe_cells(self, cells: np.ndarray, columns: Sequence[str]) -> pd.DataFrame:
        """Return the annotation of chosen cells, in their order."""
        known = [column for column in (*columns, *FURTHER) if column in self.obs.schema.names]
        table = self.obs.read(coords=(cells,), column_names=[CELL, *known]).concat().to_pandas()
        return table.set_index(CELL).loc[cells].astype(str)

    def read_studies(self, datasets: Sequence[str]) -> pd.DataFrame:
        """Return row number, collection and DOI of data sets."""
        table = self.info["datasets"].read().concat().to_pandas().set_index("dataset_id", drop=False)
        return table.loc[list(datasets), [CELL, *(column for column in STUDY if column in table)]]

    def read_genes(self) -> pd.DataFrame:
        """Return identifiers and symbols of all genes."""
        return self.measurement.var.read().concat().to_pandas().sort_values(CELL, ignore_index=True)

    def measured_genes(self, studies: pd.DataFrame, genes: pd.DataFrame) -> np.ndarray:
        """Return whether a data set measured a gene, data sets × genes. Unmeasured genes have zeros in the Census."""
        matrix = self.measurement["feature_dataset_presence_matrix"]
        rows = np.sort(studies[CELL].to_numpy())
        table = matrix.read((rows, slice(None))).tables().concat().to_pandas()
        found = sp.coo_matrix(
            (
                table["soma_data"].to_numpy() > 0,
                (np.searchsorted(rows, table["soma_dim_0"]), np.searchsorted(genes[CELL], table["soma_dim_1"])),
            ),
            shape=(len(rows), len(genes)),
        ).toarray()
        return found[np.searchsorted(rows, studies[CELL])]

    def read_counts(self, cells: np.ndarray, genes: np.ndarray) -> sp.csr_matrix:
        """Return raw counts of chosen cells and genes, both sorted by identifier, as float32."""
        blocks = []
        for start in range(0, len(cells), CELLS_PER_BLOCK):
            block = cells[start : start + CELLS_PER_BLOCK]
            table = self.measurement.X["raw"].read((block, genes)).tables().concat()
            values, rows, columns = (
                table.column(name).to_numpy() for name in ("soma_data", "soma_dim_0", "soma_dim_1")
            )
            place = np.searchsorted(block, rows), np.searchsorted(genes, columns)
            blocks.append(sp.csr_matrix((values.astype(np.float32), place), shape=(len(block), len(genes))))
        return sp.vstack(blocks, format="csr")


@contextmanager
def open_store(release: Release, organism: str) -> Iterator[Store]:
    """Open a Census for reading.

    Raises
    ------
    ConnectionError
        If it cannot be reached or read.
    ValueError
        If the version or the organism is unknown.
    """
    if release.uri is not None:
        soma = require("tiledbsoma")
        opened = lambda: soma.open(release.uri)
    else:
        package = require("cellxgene_census")
        opened = lambda: package.open_soma(census_version=release.version)
    with _problems_named(release), opened() as census:
        yield Store(census, organism, release)


@contextmanager
def _problems_named(release: Release) -> Iterator[None]:
    """Turn errors of the network and of the store into one message; an unknown version into a ``ValueError``."""
    try:
        yield
    except (OSError, require("tiledbsoma").SOMAError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = (
            "Check the path of the copy."
            if release.uri is not None
            else "Check the connection and try again, or pass the location of a copy as uri=."
        )
        msg = f"Expected to read {release}, found {type(error).__name__}: {reason}. {advice}"
        raise ConnectionError(msg) from error
    except ValueError as error:
        if release.uri is None and "Census version" in str(error):
            known = list(require("cellxgene_census").get_census_version_directory())
            guess = nearest(release.version, known)
            msg = f"Expected a release of the Census, found {release.version!r}; releases are {examples(known, 12)}. {guess}"
            raise ValueError(msg.rstrip()) from None
        raise
