"""Roles of rows and columns: names, values, annotation, summaries, totals and what looks like something else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scdeconv import pp, read_bulk

RNG = np.random.default_rng(0)
GENES = ["ACTB", "CD3E", "CD19", "GAPDH", "MS4A1", "LYZ", "NKG7", "B2M"]
SAMPLES = ["alpha", "beta", "gamma"]
TABLE = pd.DataFrame(RNG.integers(30, 900, (8, 3)), GENES, SAMPLES)
IDS = [f"ENSG0000000000{i}" for i in range(8)]


def bulk(path, table, *, turned=False, **options):
    (table.T if turned else table).to_csv(path / "t.csv", index_label="sample" if turned else "gene")
    return read_bulk(path / "t.csv", **options)


def signature(path, table, *, turned=False, **options):
    (table.T if turned else table).to_csv(path / "t.csv", index_label="name")
    return pp.read_signature(path / "t.csv", **options)


BOTH = pytest.mark.parametrize("read", [bulk, signature])
EITHER = pytest.mark.parametrize("turned", [False, True])


def same(adata, table=TABLE):
    assert list(adata.obs_names) == list(table.columns)
    assert list(adata.var_names) == list(table.index)
    np.testing.assert_allclose(adata.X, table.T, rtol=1e-6)


ANNOTATION = {
    "start_position": RNG.integers(10**6, 10**8, 8),
    "strand": [1, -1] * 4,
    "Length": RNG.integers(500, 5000, 8),
    "effective_length": RNG.uniform(500, 5000, 8),
    "exon_length": RNG.integers(500, 5000, 8),
    "GC_content": RNG.uniform(0.3, 0.6, 8),
    "GeneID": RNG.integers(100, 99999, 8),
    "baseMean": RNG.uniform(10, 500, 8),
    "entrez": [1, 2, "NA", 4, 5, 6, 7, 8],
    "chromosome": [1, 2, 3, "X", "Y", "MT", 7, 8],
    "description": list("abcdefgh"),
}


@BOTH
@pytest.mark.parametrize("name", ANNOTATION)
def test_gene_annotation_is_kept_in_var(tmp_path, read, name):
    table = TABLE.copy()
    table.insert(0, name, ANNOTATION[name])
    found = read(tmp_path, table)
    same(found)
    expected = pd.Series(list(ANNOTATION[name]), found.var_names, name=name)
    kept = found.var[name] if expected.dtype.kind in "if" else found.var[name].astype(str)
    pd.testing.assert_series_equal(kept, expected if expected.dtype.kind in "if" else expected.astype(str))


def test_sample_annotation_is_kept_in_obs(tmp_path):
    samples = TABLE.T.assign(age=[30, 40, 50], donor=["a", "b", "c"], batch=[1, 2, 1], library_size=TABLE.sum())
    samples.to_csv(tmp_path / "t.csv", index_label="sample")
    found = read_bulk(tmp_path / "t.csv")
    same(found)
    assert found.obs["age"].tolist() == [30, 40, 50]
    assert list(found.obs) == ["age", "donor", "batch", "library_size"]
    same(bulk(tmp_path, pd.concat([TABLE, pd.DataFrame([[30, 40, 50]], ["age"], SAMPLES)])))


SUMMARIES = [
    "__no_feature",
    "__alignment_not_unique",
    "N_unmapped",
    "N_noFeature",
    "Unassigned_Ambiguity",
    "_ambiguous",
]


@BOTH
@EITHER
@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_are_left_out(tmp_path, capsys, read, turned, name):
    same(read(tmp_path, pd.concat([TABLE, pd.DataFrame(9999, [name], SAMPLES)]), turned=turned))
    assert "1 summaries of reads without gene left out" in capsys.readouterr().out


@BOTH
@EITHER
@pytest.mark.parametrize(
    ("name", "function"), [("Total", "sum"), ("row_sum", "sum"), ("Mean", "mean"), ("median", "median")]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_totals_are_left_out(tmp_path, capsys, read, turned, name, function, axis):
    total = getattr(TABLE, function)(axis=axis)
    table = TABLE.assign(**{name: total}) if axis else pd.concat([TABLE, total.to_frame(name).T])
    same(read(tmp_path, table, turned=turned))
    assert f"totals left out: '{name}'" in capsys.readouterr().out


SUSPICIOUS = {
    "constant": [3] * 8,
    "row numbers": range(1, 9),
    "the sum of all others": TABLE.sum(axis=1),
    "far larger than all others": RNG.integers(10**6, 10**8, 8),
    "fractions beside whole numbers": RNG.uniform(0.3, 0.6, 8),
    "negative numbers beside others": [1, -1] * 4,
}


@BOTH
@EITHER
@pytest.mark.parametrize("reason", SUSPICIOUS)
def test_suspicious_columns_need_a_decision(tmp_path, read, turned, reason):
    table = TABLE.copy()
    table.insert(1, "x y", SUSPICIOUS[reason])
    with pytest.raises(ValueError, match=rf"t\.csv, found 1 rows .*'x y' \({reason}.*drop=\['x y'\]"):
        read(tmp_path, table, turned=turned)
    same(read(tmp_path, table, turned=turned, drop="x y"))
    annotated = read(tmp_path, table, turned=turned, annotation=["x y"])
    same(annotated)
    assert annotated.var["x y"].tolist() == pytest.approx(list(SUSPICIOUS[reason]))
    if "negative" not in reason:
        same(bulk(tmp_path, table, turned=turned, drop=[]), table)


def test_lengths_do_not_correlate_with_samples(tmp_path):
    depth = RNG.lognormal(0, 0.3, 5)
    table = pd.DataFrame(RNG.lognormal(5, 2, (60, 1)) * depth, [f"G{i}" for i in range(60)]).round().astype(int) + 1
    table.columns = list("abcde")
    same(bulk(tmp_path, table), table)
    with pytest.raises(ValueError, match="'bp_model' .unrelated to all others"):
        bulk(tmp_path, table.assign(bp_model=RNG.permutation(60) * 97 + 500))


@pytest.mark.parametrize("values", [0, TABLE["alpha"] * 90])
def test_empty_and_deep_samples_are_kept(tmp_path, values):
    same(bulk(tmp_path, TABLE.assign(beta=values)), TABLE.assign(beta=values))


def test_other_names_among_ensembl_are_suspicious(tmp_path):
    names = [f"ENSG{i:011d}" for i in range(30)]
    table = pd.DataFrame(RNG.integers(0, 99, (30, 3)), names, SAMPLES)
    same(bulk(tmp_path, table), table)
    with pytest.raises(ValueError, match="'PMI_hours' .no identifier of Ensembl"):
        bulk(tmp_path, pd.concat([table, pd.DataFrame([[5, 7, 9]], ["PMI_hours"], SAMPLES)]), turned=True)


DATES = {
    "1-Mar": "MARCH1 or MARC1, now MARCHF1",
    "Mar-01": "MARCH1",
    "2-Sep": "SEPT2, now SEPTIN2",
    "2-Sep-23": "SEPT2",
    "2023-03-01": "MARCH1",
    "3/1/2023": "MARCH1",
    "01.12.2023": "DEC1",
    "1. Mrz": "MARCH1",
}


@BOTH
@EITHER
@pytest.mark.parametrize("date", DATES)
def test_dates_are_named_with_their_genes(tmp_path, read, turned, date):
    with pytest.raises(ValueError, match=rf"1 dates that Excel made of them: '{date} \({DATES[date]}"):
        read(tmp_path, TABLE.rename({"MS4A1": date}), turned=turned)


def test_dates_in_other_inputs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="gene_names, found 1 dates .*'2-Sep .SEPT2"):
        bulk(tmp_path, TABLE.set_axis(IDS), gene_names=dict(zip(IDS, [*GENES[:7], "2-Sep"], strict=True)))
    AnnData(TABLE.T.set_axis([*GENES[:7], "1-Dec"], axis=1).astype(float)).write_h5ad(tmp_path / "b.h5ad")
    with pytest.raises(ValueError, match="the bulk, found 1 dates .*'1-Dec .DEC1"):
        read_bulk(tmp_path / "b.h5ad")


def test_genes_with_names_of_months_are_kept(tmp_path):
    table = TABLE.set_axis(["MARCH1", "SEPT2", "DEC1", "MARCHF11", "NOV", "MAR-1x", "APR-1A", "ACTB"])
    same(bulk(tmp_path, table), table)


@BOTH
def test_row_numbers_are_no_gene_names(tmp_path, read):
    numbers = TABLE.set_axis([str(row) for row in range(8)])
    with pytest.raises(ValueError, match="found the numbers '0', '1', '2' and 5 more in their place"):
        read(tmp_path, numbers)


@BOTH
def test_a_table_without_names_is_refused(tmp_path, read):
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ValueError, match="names in the first column .*numbers .* in 'alpha'"):
        (read_bulk if read is bulk else pp.read_signature)(tmp_path / "t.csv")


def test_symbols_after_identifiers_are_left_out(tmp_path):
    joined = TABLE.set_axis([f"{name}.3|{gene}" for name, gene in zip(IDS, GENES, strict=True)])
    same(bulk(tmp_path, joined), TABLE.set_axis(IDS))


def test_names_are_taken_from_another_column(tmp_path, capsys):
    TABLE.rename_axis("symbol").reset_index().to_csv(tmp_path / "t.csv")
    same(read_bulk(tmp_path / "t.csv"))
    assert "names from column 'symbol'; row numbers in the first column left out" in capsys.readouterr().out
    bed = TABLE.rename_axis("gene").reset_index()
    bed.insert(0, "chr", "chr1")
    bed.insert(1, "start", range(8))
    bed.to_csv(tmp_path / "t.csv", index=False)
    found = read_bulk(tmp_path / "t.csv")
    same(found)
    assert list(found.var) == ["chr", "start"]
    donors = TABLE.T.rename_axis("sample").reset_index()
    donors.insert(0, "donor", ["d1", "d1", "d2"])
    donors.to_csv(tmp_path / "t.csv", index=False)
    assert read_bulk(tmp_path / "t.csv").obs["donor"].tolist() == ["d1", "d1", "d2"]


def test_genes_without_name_are_left_out(tmp_path, capsys):
    same(bulk(tmp_path, TABLE.rename({"LYZ": "", "NKG7": "NA"})), TABLE.drop(["LYZ", "NKG7"]))
    assert "2 genes without name left out" in capsys.readouterr().out


HEADERS = {
    "one short": ("gene,alpha,beta\n", "3 names .'gene', 'alpha', 'beta'. over rows of 4 fields .*'gene' is a sample"),
    "numbers": ("foo,11,12,13\n", "numbers in the first line .'foo', '11', '12', '13'.*header=True or header=False"),
}


@BOTH
@pytest.mark.parametrize("kind", HEADERS)
def test_headers_with_two_readings_are_refused(tmp_path, read, kind):
    first, message = HEADERS[kind]
    (tmp_path / "t.csv").write_text(first + TABLE.to_csv(header=False))
    with pytest.raises(ValueError, match=message):
        (read_bulk if read is bulk else pp.read_signature)(tmp_path / "t.csv")


def test_header_argument_decides(tmp_path, capsys):
    path = tmp_path / "run.csv"
    path.write_text("foo,11,12,13\n" + TABLE.to_csv(header=False))
    assert list(read_bulk(path, header=True).obs_names) == ["11", "12", "13"]
    found = read_bulk(path, header=False)
    assert list(found.obs_names) == ["run_1", "run_2", "run_3"]
    assert found.var_names[0] == "foo"
    assert "no header: samples named by the file" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [False, True])
def test_htseq_files_have_no_header(tmp_path, extra):
    for sample in (1, 2):
        rows = [(name, *(["x"] if extra else []), sample * k) for k, name in enumerate([*IDS, "__no_feature"])]
        (tmp_path / f"D{sample}.htseq.counts").write_text("".join("\t".join(map(str, row)) + "\n" for row in rows))
    found = read_bulk(tmp_path)
    same(found, pd.DataFrame({"D1": range(8), "D2": range(0, 16, 2)}, IDS))


def test_gdc_files_are_read_by_strand(tmp_path, capsys):
    header = ["gene_id", "gene_name", "gene_type", "unstranded", "stranded_first", "stranded_second", "tpm_unstranded"]
    lines = [header, ["N_unmapped", "", "", 10**6, 10**6, 0, ""]]
    lines += [
        [f"{name}.3", gene, "coding", 100 + k, 1, 90 + k, k / 2]
        for k, (name, gene) in enumerate(zip(IDS, GENES, strict=True))
    ]
    path = tmp_path / "D1.rna_seq.augmented_star_gene_counts.tsv"
    path.write_text("# gene-model: x\n" + "".join("\t".join(map(str, line)) + "\n" for line in lines))
    found = read_bulk(path)
    same(found, pd.DataFrame({"D1": range(90, 98)}, IDS))
    assert found.var["gene_name"].tolist() == GENES
    assert "GDC (STAR) (reverse)" in capsys.readouterr().out
    same(read_bulk(path, unit="tpm"), pd.DataFrame({"D1": np.arange(8) / 2}, IDS))


def test_stringtie_and_cufflinks_have_no_counts(tmp_path):
    stringtie = pd.DataFrame({"Gene Name": GENES, "Reference": 1, "Start": 5, "End": 9, "FPKM": 1.5, "TPM": 2.5}, IDS)
    cufflinks = pd.DataFrame({"gene_short_name": GENES, "length": "-", "FPKM": np.arange(8), "FPKM_conf_lo": 0}, IDS)
    for name, table, corner in (("D1_gene_abund.tab", stringtie, "Gene ID"), ("D1.txt", cufflinks, "tracking_id")):
        table.to_csv(tmp_path / name, sep="\t", index_label=corner)
        with pytest.raises(ValueError, match="Expected counts in .*found only TPM or FPKM.*unit='tpm'"):
            read_bulk(tmp_path / name)
    same(read_bulk(tmp_path / "D1_gene_abund.tab", unit="tpm"), pd.DataFrame({"D1": [2.5] * 8}, IDS))
    same(read_bulk(tmp_path / "D1.txt", unit="tpm"), pd.DataFrame({"D1": np.arange(8) / 28e-6}, IDS))


def test_counts_are_chosen_among_several_units(tmp_path, capsys):
    table = pd.concat(
        [TABLE.add_suffix("_count"), (TABLE / 7).add_suffix("_TPM"), (TABLE / 3).add_suffix("_FPKM")], axis=1
    )
    same(bulk(tmp_path, table))
    assert "columns of FPKM, tpm left out" in capsys.readouterr().out
    same(bulk(tmp_path, table, unit="tpm"), TABLE / 7)
    with pytest.raises(ValueError, match="Expected counts in .*columns of 'FPKM', 'tpm'"):
        bulk(tmp_path, table.iloc[:, 3:])


RESULTS = {
    "DESeq2": ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"],
    "limma": ["logFC", "AveExpr", "t", "P.Value", "adj.P.Val", "B"],
}


@pytest.mark.parametrize("program", RESULTS)
def test_results_of_tests_are_no_expression(tmp_path, program):
    table = pd.DataFrame(RNG.uniform(1, 9, (8, 6)), GENES, RESULTS[program])
    with pytest.raises(ValueError, match="results of a differential expression test"):
        bulk(tmp_path, table)
    same(bulk(tmp_path, pd.concat([table, TABLE], axis=1)))


def test_long_tables_and_summary_files_are_refused(tmp_path):
    TABLE.rename_axis("gene").reset_index().melt("gene", var_name="sample").to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(
        ValueError, match=r"a long table .*table\.pivot\(index='gene', columns='sample', values='value'\)"
    ):
        read_bulk(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("Status\tS1.bam\nAssigned\t10\nUnassigned_NoFeatures\t3\n")
    with pytest.raises(ValueError, match="the summary of featureCounts"):
        read_bulk(tmp_path / "t.csv")


@BOTH
def test_unknown_choices_are_refused(tmp_path, read):
    with pytest.raises(ValueError, match="drop= and annotation=, found 'nothing'"):
        read(tmp_path, TABLE, drop=["nothing"])
    with pytest.raises(ValueError, match="'alpha' in both"):
        read(tmp_path, TABLE, drop=["alpha"], annotation="alpha")
    with pytest.raises(TypeError, match="drop to be a list of names or text, or None, found 5"):
        read(tmp_path, TABLE, drop=5)


def test_choices_apply_to_tables_only(tmp_path):
    AnnData(TABLE.T.astype(float)).write_h5ad(tmp_path / "b.h5ad")
    for option in ({"drop": ["alpha"]}, {"annotation": []}, {"header": True}):
        with pytest.raises(ValueError, match="Expected a table for header=, drop= or annotation="):
            read_bulk(tmp_path / "b.h5ad", **option)


def test_annotation_of_every_file_is_left_aside(tmp_path):
    for sample in SAMPLES:
        table = TABLE[[sample]].set_axis(["count"], axis=1)
        table.insert(0, "Length", range(500, 508))
        table.to_csv(tmp_path / f"{sample}.csv", index_label="gene")
    found = read_bulk([tmp_path / f"{sample}.csv" for sample in SAMPLES])
    same(found)
    assert found.var["Length"].tolist() == list(range(500, 508))
