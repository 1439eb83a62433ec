"""Names that tell what a row or column of an expression table is."""

from __future__ import annotations

import re

import pandas as pd

from scdeconv._data.gene_names import is_ensembl
from scdeconv._data.labels import as_text

MISSING_MARKS = ("", "na", "nan", "n/a", "#n/a", "null", "none")
# gene names that mean no gene
NO_GENE = (*MISSING_MARKS, "-", "--", "---", "?", ".", "*", "#ref!", "#name?", "#value!")
EXCEL_ERROR = re.compile(r"#(N/A|REF!|NAME\?|VALUE!|DIV/0!|NUM!|NULL!)")


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# annotation of genes, without case and separators
GENE_ANNOTATION = _words(
    "chr chrom chromosome chromosomename seqname seqnames seqid contig strand locus band karyotypeband cytoband "
    "startposition endposition genestart geneend genestartbp geneendbp txstart txend chromstart chromend "
    "length genelength transcriptlength effectivelength efflength exonlength exoniclength cdslength genelen "
    "meanlength medianlength mergedlength featurelength exoncount numexons nexons ntranscripts "
    "gc gccontent percentgc percentgccontent genegccontent percentagegenegccontent gcpercent "
    "entrez entrezid entrezgene entrezgeneid ncbigeneid ncbiid hgncid ensemblid ensemblgeneid geneid geneids "
    "genename genenames genesymbol symbol hugosymbol hgncsymbol externalgenename description genedescription "
    "genetype genebiotype biotype refseq uniprot uniprotid transcriptid transcriptids geneversion "
    "basemean log2foldchange lfcse logfc pvalue padj fdr qvalue adjpval aveexpr logcpm dispersion"
)
# they describe genes only beside a chromosome
POSITIONS = frozenset({"start", "end", "width", "position", "pos", "reference", "bp"})
# columns of a differential expression test
TESTS = frozenset({"log2foldchange", "logfc"})
TEST_RESULTS = TESTS | _words(
    "basemean lfcse stat pvalue padj fdr qvalue adjpval aveexpr logcpm t b f lr svalue foldchange"
)
# annotation of samples, without case and separators
SAMPLE_ANNOTATION = _words(
    "donor donorid patient patientid subject subjectid individual individualid participant participantid sample "
    "sampleid samplename case caseid age ageyears sex gender bmi batch group condition disease diagnosis status "
    "treatment timepoint time day visit tissue site plate lane run race ethnicity smoking weight height rin pmi "
    "libsize librarysize readdepth totalreads mappedreads totalcounts ngenes stage grade survival"
)
GENE_CORNERS = (
    *("gene", "ensembl", "ensg", "symbol", "hugo", "hgnc", "entrez", "feature", "transcript", "tx", "targetid"),
    *("trackingid", "probe"),
)
SAMPLE_CORNERS = ("sample", "donor", "patient", "subject", "individual", "participant", "mixture")
# names of a column of row numbers
NUMBER_CORNERS = frozenset({"", "index", "row", "rows", "rownames", "no", "nr", "number", "x", "unnamed0", "level0"})
CORNER_WORDS = (
    "gene|ensembl|ensg|symbol|hugo|hgnc|entrez|ncbi|refseq|feature|transcript|tx|target|tracking|probe|mirna|protein|"
    "locus|sample|donor|patient|subject|individual|participant|mixture|celltype|specimen|row|id|name|"
    "index|identifier|accession|stable|version|label|title|number|key|list|ref|set|barcode|run|library|unnamed0|x|"
    "cluster|status|no|nr|level0|short|geo"
)
CORNER = re.compile(rf"(({CORNER_WORDS})s?)*")
# counts of reads that belong to no gene: htseq-count, STAR, featureCounts, DEXSeq
SUMMARY = (
    r"(?i)_{0,2}(no_feature|ambiguous(_readpair_position)?|too_low_aqual|lowaqual|not_?aligned|alignment_not_unique|"
    r"empty)|N_(unmapped|multimapping|noFeature|ambiguous)|Unassigned_\w+"
)
# a symbol with letters and digits, e.g. TSPAN6 or 0610005C13Rik
SYMBOL = re.compile(r"(?=.*\d)(?=.*[A-Za-z])[A-Za-z0-9.-]+")
# housekeeping gene symbols that identify the gene axis (set by hand)
HOUSEKEEPING_GENES = frozenset(
    {"ACTB", "B2M", "EEF1A1", "FTL", "GAPDH", "HPRT1", "MALAT1", "PPIA", "RPL13A", "RPLP0", "TBP", "TUBB", "UBC", "VIM"}
)
TRANSCRIPT = r"(ENS[A-Z]*T\d{6,}|[NX][MR]_\d{6,})"

# genes that Excel turns into dates, by month: name before and after the renaming of 2020
DATE_GENES = {
    3: ("MARCH{0} or MARC{0}", "MARCHF{0} or MTARC{0}"),
    9: ("SEPT{0}", "SEPTIN{0}"),
    12: ("DEC{0}", "DELEC{0}"),
}
MONTHS = {"jan": 1, "feb": 2, "mar": 3, "mär": 3, "apr": 4, "may": 5, "jun": 6, "jul": 7, "aug": 8, "sep": 9, "sept": 9}
MONTHS |= {"mrz": 3, "oct": 10, "okt": 10, "nov": 11, "dec": 12, "dez": 12, "déc": 12, "mars": 3}
DATE_FORMS = tuple(
    re.compile(rf"(?i){form}")
    for form in (
        r"(?P<day>\d{1,2})[-. /]{1,2}(?P<word>[a-zäé]{3,4})\.?([-. /]\d{2,4})?",
        r"(?P<word>[a-zäé]{3,4})\.?[-. /](?P<day>\d{1,2})",
        r"\d{4}[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})( 00:00:00)?",
        r"(?P<month>3|03|9|09|12)[/.](?P<day>\d{1,2})([/.]\d{2,4})",
        r"(?P<day>\d{1,2})[/.](?P<month>3|03|9|09|12)([/.]\d{2,4})",
    )
)


def plain(name: str) -> str:
    """Return a name in lower case without separators, e.g. 'genename' for 'Gene_Name'."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def is_corner(name: str) -> bool:
    """Return whether a name in the first field of a header is one of the column of names, e.g. 'Gene ID'."""
    return bool(CORNER.fullmatch(plain(name)))


def is_gene(name: str) -> bool:
    """Return whether a name is a gene, a transcript or a count of reads without gene."""
    index = pd.Index([name])
    return are_genes(index) or bool(re.fullmatch(SUMMARY, name) or SYMBOL.fullmatch(name))


def are_transcripts(names: pd.Index) -> bool:
    """Return whether most names are transcript identifiers."""
    return bool(len(names)) and float(names.str.match(TRANSCRIPT).mean()) > 0.5


def are_genes(names: pd.Index) -> bool:
    """Return whether names are Ensembl identifiers or contain a housekeeping gene."""
    names = as_text(names)
    return is_ensembl(names) or are_transcripts(names) or not HOUSEKEEPING_GENES.isdisjoint(names.str.upper())


def gene_of_date(name: str) -> str | None:
    """Return the genes that Excel may have turned into this date, e.g. 'SEPT2, now SEPTIN2' for '2-Sep'."""
    for form in DATE_FORMS:
        found = form.fullmatch(name)
        if not found:
            continue
        parts = found.groupdict()
        month = MONTHS.get(parts["word"].lower()) if "word" in parts else int(parts["month"])
        if month is not None and 1 <= month <= 12:
            old, new = DATE_GENES.get(month, ("a gene", "unknown"))
            return f"{old}, now {new}".format(int(parts["day"]))
    return None


def are_row_numbers(names: pd.Index) -> bool:
    """Return whether names are 0, 1, 2, … or 1, 2, 3, …."""
    first = str(names[0]) if len(names) else ""
    return (
        len(names) > 1 and first in ("0", "1") and list(names) == [str(int(first) + row) for row in range(len(names))]
    )
