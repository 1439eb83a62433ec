from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, read_bulk
from scdeconv._data.modalities import columns_stay, make_mudata, write_mudata

ENSEMBL = ["ENSG00000141510.17", "ENSG00000075624.16", "ENSG00000111640.15"]
SYMBOLS = ["TP53", "ACTB", "GAPDH"]
IDS = ["ENSG00000141510", "ENSG00000075624", "ENSG00000111640"]


@pytest.fixture
def counts():
    """Samples × genes."""
    values = np.random.default_rng(0).integers(0, 5000, (4, 30))
    return pd.DataFrame(values, [f"S{i}" for i in range(4)], [f"GENE{i}" for i in range(30)])


def write(path, lines):
    """Write rows of fields, separated by tabs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join("\t".join(map(str, line)) for line in lines) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def quant_sf(path, names, reads, tpm=None):
    header = ("Name", "Length", "EffectiveLength", "TPM", "NumReads")
    return write(path, [header, *((n, 1500, 1320.5, t, r) for n, t, r in zip(names, tpm or reads, reads, strict=True))])


def assert_is(adata, obs_names, var_names, values):
    assert list(adata.obs_names) == list(obs_names)
    assert list(adata.var_names) == list(var_names)
    np.testing.assert_array_equal(adata.X, np.asarray(values, dtype=adata.X.dtype))


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("genes_in", ["rows", "columns"])
@pytest.mark.parametrize("name", ["bulk.txt", "bulk.csv.gz"])
def test_tables_are_read_in_either_orientation(counts, tmp_path, capsys, separator, genes_in, name):
    table = counts.T if genes_in == "rows" else counts
    table.to_csv(tmp_path / name, sep=separator)
    bulk = read_bulk(tmp_path / name)
    assert_is(bulk, counts.index, counts.columns, counts)
    assert bulk.X.dtype == np.int32
    said = f"read_bulk: table, 4 samples × 30 genes, counts ({genes_in} were genes)\n"
    assert capsys.readouterr().out == said


def test_fractional_values_become_float32(counts, tmp_path, capsys):
    tpm = counts.div(counts.sum(axis=1), axis=0) * 1e6
    tpm.to_csv(tmp_path / "tpm.csv")
    bulk = read_bulk(tmp_path / "tpm.csv")
    assert bulk.X.dtype == np.float32
    np.testing.assert_allclose(bulk.X, tpm, rtol=1e-6)
    assert "genes, TPM (" in capsys.readouterr().out


def test_counts_beyond_32_bits_are_exact(tmp_path):
    path = write(tmp_path / "bulk.tsv", [("gene", "S1"), ("ACTB", 3_000_000_001), ("TP53", 7)])
    assert_is(read_bulk(path), ["S1"], ["ACTB", "TP53"], [[3_000_000_001, 7]])


@pytest.mark.parametrize(
    ("rows", "columns", "corner"),
    [
        (SYMBOLS, list("abcd"), ""),
        ([f"MG{i}" for i in range(3)], list("abcd"), "Gene_ID"),
        (["ENSMUSG00000059552", "ENSMUSG00000029580.14", "x"], list("abcd"), "id"),
    ],
)
def test_gene_axis_is_found_by_name(tmp_path, rows, columns, corner):
    values = np.arange(12).reshape(3, 4)
    table = pd.DataFrame(values, rows, columns)
    table.rename_axis(corner).to_csv(tmp_path / "rows.csv")
    assert list(read_bulk(tmp_path / "rows.csv").obs_names) == columns
    table.T.rename_axis("sample_id").to_csv(tmp_path / "columns.csv")
    assert_is(read_bulk(tmp_path / "columns.csv"), columns, read_bulk(tmp_path / "rows.csv").var_names, values.T)


def test_ambiguous_orientation_is_refused(tmp_path):
    table = pd.DataFrame(np.arange(12).reshape(3, 4), ["x", "y", "z"], list("abcd"))
    table.to_csv(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"found 3 rows \('x', 'y', 'z'\) and 4 columns .* genes_in='rows'"):
        read_bulk(tmp_path / "t.csv")
    assert_is(read_bulk(tmp_path / "t.csv", genes_in="rows"), list("abcd"), ["x", "y", "z"], table.T)
    assert_is(read_bulk(tmp_path / "t.csv", genes_in="columns"), ["x", "y", "z"], list("abcd"), table)


def test_r_excel_and_windows_layouts_are_read(counts, tmp_path):
    body = "".join(f'"{gene}",{",".join(map(str, column))}\r\n' for gene, column in counts.items())
    # write.table omits the corner cell, Excel adds a byte order mark and empty rows
    content = "\ufeff" + ",".join(f'"{name}"' for name in counts.index) + "\r\n" + body + ",,,,\r\n\r\n"
    (tmp_path / "bulk.csv").write_bytes(content.encode())
    assert_is(read_bulk(tmp_path / "bulk.csv"), counts.index, counts.columns, counts)


def test_annotation_columns_are_kept_beside_the_matrix(tmp_path):
    lines = [("Hugo_Symbol", "Entrez_Gene_Id", "description", "S1", "S2")]
    lines += [(gene, i + 7, 'the "5 end', i, 10 * i) for i, gene in enumerate(SYMBOLS)]
    bulk = read_bulk(write(tmp_path / "bulk.tsv", lines))
    assert_is(bulk, ["S1", "S2"], SYMBOLS, [[0, 1, 2], [0, 10, 20]])
    assert bulk.var["Entrez_Gene_Id"].tolist() == [7, 8, 9]
    assert bulk.var["description"].tolist() == ['the "5 end'] * 3
    samples = [("sample", "batch", *SYMBOLS), ("S1", "b1", 0, 1, 2), ("S2", "b2", 0, 10, 20)]
    turned = read_bulk(write(tmp_path / "turned.tsv", samples))
    assert_is(turned, ["S1", "S2"], SYMBOLS, bulk.X)
    assert turned.obs["batch"].tolist() == ["b1", "b2"]


def test_featurecounts_samples_are_named_by_bam_files(tmp_path, capsys):
    bams = [f"/data/run 1/{name}" for name in ("D01Aligned.sortedByCoord.out.bam", "D-02.markdup.sorted.bam", "D3.bam")]
    lines = [("Geneid", "Chr", "Start", "End", "Strand", "Length", *bams)]
    lines += [
        (gene, "chr1;chr1", "11869;12010", "12227;12057", "+;+", 1735 + i, i, 2 * i, 0)
        for i, gene in enumerate(ENSEMBL)
    ]
    path = write(tmp_path / "counts.txt", lines)
    path.write_text('# Program:featureCounts v2.0.6; Command:"featureCounts" "-a" "x,y.gtf"\n' + path.read_text())
    bulk = read_bulk(path)
    assert_is(bulk, ["D01", "D-02", "D3"], IDS, [[0, 1, 2], [0, 2, 4], [0, 0, 0]])
    assert bulk.var.to_dict("list") == {"length": [1735, 1736, 1737]}
    assert (
        capsys.readouterr().out
        == "read_bulk: featureCounts, 3 samples × 3 genes, counts (rows were genes); 'length' in var\n"
    )


def test_equal_file_names_use_folder_names(tmp_path):
    bams = [f"out/{name}/mapped/accepted_hits.bam" for name in ("D01", "D02")]
    lines = [("Geneid", "Chr", "Start", "End", "Strand", "Length", *bams), ("ACTB", "1", 1, 5, "+", 5, 3, 4)]
    assert list(read_bulk(write(tmp_path / "counts.txt", lines)).obs_names) == ["D01", "D02"]


def test_samples_named_start_and_end_are_kept(tmp_path):
    rows = [(gene, 1, i, 2 * i) for i, gene in enumerate(SYMBOLS)]
    path = write(tmp_path / "bulk.tsv", [("gene", "length", "start", "end"), *rows])
    assert list(read_bulk(path).obs_names) == ["start", "end"]
    path = write(tmp_path / "bulk.tsv", [("gene", "chr", "start", "S1"), *rows])
    assert list(read_bulk(path).obs_names) == ["S1"]


TRANSCRIPTS = [
    "ENST00000269305.9|ENSG00000141510.17|x|",
    "ENST00000413465.6|x|",
    "ENST00000646664.1|x|",
    "ENST00000999999.1",
]


@pytest.mark.parametrize("as_file", [True, False])
def test_salmon_transcripts_are_summed_to_genes(tmp_path, capsys, as_file):
    quant_sf(tmp_path / "D01_quant" / "quant.sf", TRANSCRIPTS, [1.5, 2.25, 100, 9], [1, 2, 3, 4])
    quant_sf(tmp_path / "D02_quant" / "quant.sf.gz", TRANSCRIPTS, [10, 20, 0, 9], [5, 6, 7, 8])
    genes = {"ENST00000269305": IDS[0], "ENST00000413465.6": ENSEMBL[0], "ENST00000646664": IDS[1]}
    if as_file:
        lines = [("transcript_id", "gene_id", "gene_name"), *((t, g, "name") for t, g in genes.items())]
        genes = write(tmp_path / "tx2gene.tsv", lines)
    bulk = read_bulk(tmp_path, tx2gene=genes)
    assert_is(bulk, ["D01", "D02"], IDS[:2], [[3.75, 100], [30, 0]])
    said = "read_bulk: Salmon, 2 samples × 2 genes, estimated counts (rows were genes); 1 transcripts without gene removed\n"
    assert capsys.readouterr().out == said
    assert_is(read_bulk(tmp_path, tx2gene=genes, unit="tpm"), ["D01", "D02"], IDS[:2], [[3, 3], [11, 7]])


def test_gene_order_may_differ_between_files(tmp_path):
    paths = [
        quant_sf(tmp_path / "a" / "quant.genes.sf", SYMBOLS, [1, 2, 3]),
        quant_sf(tmp_path / "b" / "quant.genes.sf", SYMBOLS[::-1], [30, 20, 10]),
    ]
    assert_is(read_bulk(paths), ["a", "b"], SYMBOLS, [[1, 2, 3], [10, 20, 30]])


def test_transcripts_need_a_gene_table(tmp_path):
    path = quant_sf(tmp_path / "D01" / "quant.sf", ["NM_1", "other"], [1, 2])
    with pytest.raises(ValueError, match=r"Expected genes, found transcripts: 'NM_1', 'other'\. .*tx2gene="):
        read_bulk(path)
    merged = write(tmp_path / "merged.tsv", [("Name", "S1", "S2"), *((t, 1, 2) for t in TRANSCRIPTS)])
    with pytest.raises(ValueError, match="found transcripts: 'ENST00000269305.9"):
        read_bulk(merged)
    with pytest.raises(
        ValueError, match="tx2gene, found none: the file has 'NM_1', 'other', tx2gene has 'ENST00000001'"
    ):
        read_bulk(path, tx2gene={"ENST00000001": "G"})
    with pytest.raises(ValueError, match="found several for 1: 'NM_1'"):
        read_bulk(path, tx2gene=pd.DataFrame({"t": ["NM_1", "NM_1"], "g": ["A", "B"]}))


def test_merged_salmon_and_nf_core_tables_are_read(tmp_path, capsys):
    lines = [
        ("tx", "gene_id", "S1", "S2"),
        *((t, g, 1.5, i) for i, (t, g) in enumerate(zip(TRANSCRIPTS, "ABAB", strict=True))),
    ]
    bulk = read_bulk(write(tmp_path / "salmon.merged.transcript_counts.tsv", lines), tx2gene="gene_id")
    assert_is(bulk, ["S1", "S2"], ["A", "B"], [[3, 3], [2, 4]])
    lines = [
        ("gene_id", "gene_name", "S1", "S2"),
        *((g, n, 1, i) for i, (g, n) in enumerate(zip(IDS, SYMBOLS, strict=True))),
    ]
    path = write(tmp_path / "salmon.merged.gene_counts.tsv", lines)
    bulk = read_bulk(path)
    assert_is(bulk, ["S1", "S2"], IDS, [[1, 1, 1], [0, 1, 2]])
    assert bulk.var["gene_name"].tolist() == SYMBOLS
    assert list(read_bulk(path, gene_names="gene_name").var_names) == SYMBOLS


def test_tximport_kallisto_and_rsem_are_read(tmp_path):
    table = pd.DataFrame(
        {"abundance.S1": [1, 2, 3], "abundance.S2": [4, 5, 6], "counts.S1": [10.5, 20, 30], "counts.S2": [40, 50, 60]},
        index=IDS,
    ).assign(**{"length.S1": 900.0, "length.S2": 901.0, "countsFromAbundance": "no"})
    table.to_csv(tmp_path / "txi.csv")
    assert_is(read_bulk(tmp_path / "txi.csv"), ["S1", "S2"], IDS, [[10.5, 20, 30], [40, 50, 60]])
    assert_is(read_bulk(tmp_path / "txi.csv", unit="tpm"), ["S1", "S2"], IDS, [[1, 2, 3], [4, 5, 6]])

    lines = [("target_id", "length", "eff_length", "est_counts", "tpm"), ("NM_000546.6", 100, 50.5, 7, 1e6)]
    path = write(tmp_path / "kallisto" / "D07" / "abundance.tsv", lines)
    assert_is(read_bulk(path.parent.parent, tx2gene={"NM_000546": "TP53"}), ["D07"], ["TP53"], [[7]])

    header = ("gene_id", "transcript_id(s)", "length", "effective_length", "expected_count", "TPM", "FPKM")
    path = write(tmp_path / "D08.genes.results", [header, *((g, "t1,t2", 9, 8, 7.5, 6, 5) for g in ENSEMBL)])
    assert_is(read_bulk(path), ["D08"], IDS, [[7.5] * 3])
    assert_is(read_bulk(path, unit="tpm"), ["D08"], IDS, [[6] * 3])


@pytest.mark.parametrize(("weights", "strand"), [((9, 4, 5), 0), ((9, 100, 1), 1), ((9, 1, 100), 2)])
def test_star_column_follows_the_strand(tmp_path, capsys, weights, strand):
    # unassigned reads outnumber all genes, and the reverse
    summary = [(f"N_{name}", 10**6, *weights[:0:-1]) for name in ("unmapped", "multimapping", "noFeature", "ambiguous")]
    for sample in (1, 2):
        genes = [(g, *(w * (i + sample) for w in weights)) for i, g in enumerate(ENSEMBL)]
        write(tmp_path / f"D{sample}_ReadsPerGene.out.tab", [*summary, *genes])
    bulk = read_bulk(tmp_path)
    assert_is(bulk, ["D1", "D2"], IDS, np.array([[1, 2, 3], [2, 3, 4]]) * weights[strand])
    assert f"STAR ({['unstranded', 'forward', 'reverse'][strand]}), 2 samples" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["series", "mapping", "frame", "file"])
def test_renamed_duplicate_genes_are_summed(tmp_path, capsys, form):
    path = write(
        tmp_path / "bulk.tsv", [("gene", "S1"), *zip([*ENSEMBL, "ENSG00000000001.1"], [1, 2, 4, 8], strict=True)]
    )
    table = pd.Series({ENSEMBL[0]: "A", IDS[1]: "B", IDS[2]: "A", "ENSG00000000001": None})
    given = {
        "series": table,
        "mapping": table.to_dict(),
        "frame": pd.DataFrame({"id": table.index, "name": table.to_numpy()}),
        "file": write(tmp_path / "names.csv", []),
    }[form]
    table.to_csv(tmp_path / "names.csv", header=False)
    bulk = read_bulk(path, gene_names=given)
    assert_is(bulk, ["S1"], ["A", "B", "ENSG00000000001"], [[5, 2, 8]])
    said = capsys.readouterr().out
    assert said.endswith("; 1 genes without new name not renamed; 2 genes with duplicate names summed to 1\n")


def test_duplicate_genes_are_summed(tmp_path, capsys):
    path = write(tmp_path / "bulk.tsv", [("gene", "S1", "S2"), ("ACTB", 1, 2), ("CD4", 3, 4), ("ACTB", 10, 20)])
    assert_is(read_bulk(path), ["S1", "S2"], ["ACTB", "CD4"], [[11, 3], [22, 4]])
    assert "2 genes with duplicate names summed to 1" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:Writing zarr v2")
@pytest.mark.parametrize("form", ["h5ad", "h5mu", "zarr", "zarr of MuData"])
def test_anndata_and_mudata_files_are_read(cohort, tmp_path, form, capsys):
    cells, original = cohort
    path = tmp_path / f"bulk.{form[:4]}"
    if form == "h5ad":
        original.write_h5ad(path)
    elif form == "zarr":
        original.write_zarr(path)
    else:
        original = pp.pair(cells, original)["bulk"]
        mdata = make_mudata({"bulk": original, "sc": cells})
        with columns_stay():
            mdata.write_h5mu(path) if form == "h5mu" else mdata.write_zarr(path)
    bulk = read_bulk(path)
    assert_is(bulk, original.obs_names, original.var_names, original.X)
    assert bulk.obs["donor"].tolist() == original.obs["donor"].tolist()
    assert f"read_bulk: {form[:4]}, 12 samples × 240 genes, counts (columns were genes)" in capsys.readouterr().out


def test_h5ad_is_transposed_renamed_and_summed(tmp_path):
    adata = AnnData(np.arange(6).reshape(3, 2), obs=pd.DataFrame({"symbol": ["A", "B", "A"]}, index=ENSEMBL))
    adata.layers["raw"] = adata.X * 10
    adata.write_h5ad(tmp_path / "turned.h5ad")
    bulk = read_bulk(tmp_path / "turned.h5ad", gene_names="symbol")
    assert_is(bulk, ["0", "1"], ["A", "B"], [[4, 2], [6, 3]])
    np.testing.assert_array_equal(bulk.layers["raw"], bulk.X * 10)


def test_input_table_is_not_changed(tmp_path, unchanged):
    path = write(tmp_path / "bulk.tsv", [("gene", "S1"), *zip(ENSEMBL, [1, 2, 4], strict=True)])
    names = pd.DataFrame({"id": ENSEMBL, "name": ["A", "B", "A"]})
    with unchanged(names):
        read_bulk(path, gene_names=names)


BAD = {
    "text": ("gene\tS1\tS2\nACTB\t1\t2\nCD4\t3\tmany\nTP53\t5\t6\n", r"1 other fields: 'many \(line 3, row CD4, column S2\)'"),
    "missing": ("gene,S1,S2\n\nACTB,1,\nCD4,NA,4\n", r"2 other fields: .*'NA \(line 4, row CD4, column S1\)', ' \(line 3"),
    "infinite": ("gene,S1,S2\nACTB,1,inf\nCD4,3,4\n", r"inf \(line 2, row ACTB, column S2\)"),
    "ragged": ("gene,S1,S2\nACTB,1,2\nCD4,3\nTP53,1,2,3,4\n", r"3 fields in every line .* 2 lines .*'line 3 \(2\)', 'line 4 \(5\)'"),
    "one column": ("gene\nACTB\nCD4\n", "Expected columns of numbers"),
    "repeated": ("gene,S1,S1\nACTB,1,2\nCD4,3,4\n", "unique samples, found 1 repeated: 'S1'"),
    "empty": ("", "found 0 lines"),
    "header": ("gene,S1\n", "found 1 lines"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_errors_name_the_position_in_the_file(tmp_path, case):
    content, message = BAD[case]
    (tmp_path / "bad.txt").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        read_bulk(tmp_path / "bad.txt")
    assert "bad.txt cannot be read as bulk: 1 problem found." in str(caught.value)


def test_binary_files_are_refused(tmp_path):
    (tmp_path / "bulk.xlsx").write_bytes(b"PK\x03\x04\xff\xfe\x00")
    whole = gzip.compress(b"gene,S1\nACTB,1\n" * 100)
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    for name in ("bulk.xlsx", "cut.csv.gz"):
        with pytest.raises(ValueError, match="text table .*Export it as CSV"):
            read_bulk(tmp_path / name)
    (tmp_path / "bulk.h5ad").write_bytes(b"no hdf5")
    with pytest.raises(OSError, match="Expected AnnData or MuData in .*bulk.h5ad"):
        read_bulk(tmp_path / "bulk.h5ad")


def test_problems_of_all_files_are_reported_together(tmp_path):
    paths = [quant_sf(tmp_path / name / "quant.sf", SYMBOLS, [1, "x", 3]) for name in ("a", "b")]
    paths.append(write(tmp_path / "c" / "quant.sf", []))
    with pytest.raises(ValueError, match="3 problems found") as caught:
        read_bulk(paths, tx2gene={})
    assert all(str(path) in str(caught.value) for path in paths)


def test_incompatible_files_are_refused(tmp_path):
    a = quant_sf(tmp_path / "a" / "quant.genes.sf", SYMBOLS, [1, 2, 3])
    b = quant_sf(tmp_path / "b" / "quant.genes.sf", [*SYMBOLS[:2], "CD4"], [1, 2, 3])
    with pytest.raises(ValueError, match="same genes in all files.* differences in 'CD4', 'GAPDH'"):
        read_bulk([a, b])
    c = write(tmp_path / "c.tsv", [("gene", "S1"), ("ACTB", 1)])
    with pytest.raises(ValueError, match="files of one program, found 'Salmon', 'table'"):
        read_bulk([a, c])


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="found none at .*absent.csv"):
        read_bulk(tmp_path / "absent.csv")
    with pytest.raises(FileNotFoundError, match="found none. Pass a list of files"):
        read_bulk(tmp_path)
    quant_sf(tmp_path / "a" / "quant.sf", SYMBOLS, [1, 2, 3])
    write(tmp_path / "a_ReadsPerGene.out.tab", [("N_unmapped", 1, 1, 1)])
    with pytest.raises(ValueError, match=r"found 1 quant\.sf, 1 \*ReadsPerGene\.out\.tab"):
        read_bulk(tmp_path)
    table = write(tmp_path / "bulk.tsv", [("gene", "S1"), ("ACTB", 1)])
    with pytest.raises(FileNotFoundError, match="gene_names as a file or as one of the columns .*'symbol'"):
        read_bulk(table, gene_names="symbol")


def test_other_modalities_and_units_are_refused(tmp_path, pairs):
    write_mudata(make_mudata({"sc": pairs["sc"]}), tmp_path / "cells.h5mu")
    with pytest.raises(ValueError, match=r"Expected modality 'bulk' .* found \['sc'\]"):
        read_bulk(tmp_path / "cells.h5mu")
    lines = [("Geneid", "Chr", "Start", "End", "Strand", "Length", "S1.bam"), ("ACTB", "1", 1, 5, "+", 5, 3)]
    with pytest.raises(ValueError, match="found only counts in the output of featureCounts"):
        read_bulk(write(tmp_path / "counts.txt", lines), unit="tpm")
