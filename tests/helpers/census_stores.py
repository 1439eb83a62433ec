"""A small store with the layout of the CELLxGENE Census, written with tiledbsoma."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

N_GENES, PER_GROUP = 30, 12
# dataset, donors, suspension, assay, cell types
STUDIES = (
    ("aaaaaaaa-1", ("D1", "D2", "D3"), "cell", "10x 3' v3", ("T cell", "B cell", "unknown")),
    ("bbbbbbbb-2", ("D1", 'it\'s "x"'), "cell", "10x 5' v1", ("T cell", "monocyte")),
    ("cccccccc-3", ("N1",), "nucleus", "10x 3' v3", ("T cell", "neuron")),
    ("dddddddd-4", ("S1",), "cell", "Smart-seq2", ("T cell",)),
    ("eeeeeeee-5", ("P1",), "cell", "10x 3' v2", ("T cell",)),
)
# positions of the data sets in the Census are not the order of their names
POSITIONS = (4, 0, 3, 1, 2)


@dataclass(frozen=True)
class Census:
    """What a store contains."""

    uri: str
    obs: pd.DataFrame
    var: pd.DataFrame
    counts: sp.csr_matrix
    presence: np.ndarray


def make_tables(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, sp.csr_matrix, np.ndarray]:
    """Return annotation of cells and genes, counts, and which data set (by position) measured which gene."""
    rng = np.random.default_rng(seed)
    rows = [
        {
            "dataset_id": dataset,
            "donor_id": donor,
            "suspension_type": suspension,
            "assay": assay,
            "cell_type": cell_type,
            "tissue": "lung parenchyma",
            "tissue_general": "lung",
            "tissue_type": "tissue",
            "disease": "normal",
            "sex": "female",
            "is_primary_data": True,
        }
        for dataset, donors, suspension, assay, cell_types in STUDIES
        for donor in donors
        for cell_type in cell_types
        for _ in range(PER_GROUP if cell_type != "monocyte" else 2)
    ]
    obs = pd.DataFrame(rows).sample(frac=1, random_state=1).reset_index(drop=True)
    # cells that no query must return, and another tissue
    other = {
        "is_primary_data": False,
        "tissue_type": "organoid",
        "disease": "it's ill",
        "tissue_general": "blood",
    }
    for number, (column, value) in enumerate(other.items()):
        obs.loc[number * 5 : number * 5 + 4, column] = value
    obs.insert(0, "soma_joinid", np.arange(len(obs)))
    genes = [f"ENSG{number:011d}" for number in range(N_GENES)]
    var = pd.DataFrame(
        {"soma_joinid": range(N_GENES), "feature_id": genes, "feature_name": [f"G{i}" for i in range(N_GENES)]}
    )
    presence = np.ones((len(STUDIES), N_GENES), dtype=np.uint8)
    presence[POSITIONS[0], :3] = 0
    presence[POSITIONS[4], 5:] = 0
    counts = rng.poisson(1.0, (len(obs), N_GENES))
    position = dict(zip((study[0] for study in STUDIES), POSITIONS, strict=True))
    counts *= presence[obs["dataset_id"].map(position)]
    return obs, var, sp.csr_matrix(counts.astype(np.float32)), presence


def write_census(folder, seed: int = 0, build_date: str = "2026-01-31") -> Census:
    """Write a store and return its content."""
    import pyarrow as pa
    import tiledbsoma as soma

    obs, var, counts, presence = make_tables(seed)
    uri = str(folder)

    def frame(collection, name, table, columns=()):
        arrow = pa.Table.from_pandas(table.astype(dict.fromkeys(columns, "category")), preserve_index=False)
        collection.add_new_dataframe(
            name, schema=arrow.schema, index_column_names=["soma_joinid"], domain=[(0, len(table) - 1)]
        ).close()
        # the categories that are written belong to a schema later than the one that was created
        with soma.open(f"{collection.uri}/{name}", "w") as new:
            new.write(arrow)

    def matrix(collection, name, values, kind):
        coo = sp.coo_matrix(values)
        with collection.add_new_sparse_ndarray(name, type=kind, shape=coo.shape) as new:
            new.write(pa.SparseCOOTensor.from_scipy(coo))

    with soma.Collection.create(uri) as census:
        info = census.add_new_collection("census_info")
        summary = pd.DataFrame({"soma_joinid": [0], "label": ["census_build_date"], "value": [build_date]})
        frame(info, "summary", summary)
        studies = pd.DataFrame(
            {
                "soma_joinid": POSITIONS,
                "dataset_id": [study[0] for study in STUDIES],
                "collection_name": "A study",
                "collection_doi": [f"10.1/{number}" for number in range(len(STUDIES))],
                "dataset_title": "A title",
            }
        )
        frame(info, "datasets", studies.sort_values("soma_joinid"))
        human = census.add_new_collection("census_data").add_new_collection("homo_sapiens", soma.Experiment)
        text = [name for name in obs if obs[name].dtype == object or str(obs[name].dtype) == "str"]
        frame(human, "obs", obs, text)
        measurement = human.add_new_collection("ms").add_new_collection("RNA", soma.Measurement)
        frame(measurement, "var", var)
        matrix(measurement, "feature_dataset_presence_matrix", presence, pa.uint8())
        matrix(measurement.add_new_collection("X"), "raw", counts, pa.float32())
    return Census(uri, obs, var, counts, presence)
