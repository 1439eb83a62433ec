#!/usr/bin/env nextflow
// From bulk and cells of the same donors to fractions and a report (DSL 2).

params.coverage = 0.8
params.seed = 0
params.new_samples = null
params.outdir = 'results'

process PAIR {
    input:
    path bulk
    path samples
    path cells
    path cell_annotation

    output:
    path 'pairs.h5mu', emit: pairs
    path 'pair.json', emit: run

    script:
    """
    scdeconv pair --bulk ${bulk} --gene-names gene_name --samples ${samples} --cells ${cells} --cell-annotation ${cell_annotation} -o pairs.h5mu --json > pair.json
    """
}

process BENCHMARK {
    input:
    path pairs

    output:
    path 'benchmark.tsv'

    script:
    """
    scdeconv benchmark ${pairs} --method calibrated_map --method nnls -o benchmark.tsv
    """
}

process TRAIN {
    input:
    path pairs

    output:
    path 'model', emit: model
    path 'train.json', emit: run

    script:
    """
    scdeconv train ${pairs} --seed ${params.seed} -o model --json > train.json
    """
}

process PREDICT {
    publishDir params.outdir, mode: 'copy'

    input:
    path model
    path bulk

    output:
    path 'fractions*.tsv', emit: tables
    path 'predict.json', emit: run

    script:
    """
    scdeconv predict ${model} ${bulk} --gene-names gene_name --coverage ${params.coverage} -o fractions.tsv --json > predict.json
    """
}

process REPORT {
    publishDir params.outdir, mode: 'copy'

    input:
    path tables
    path model
    path benchmark
    path runs

    output:
    path 'report.html', emit: page
    path 'report_*_mqc.json', emit: multiqc

    script:
    """
    scdeconv report fractions.tsv --model ${model} --benchmark ${benchmark} --runs ${runs} -o report.html
    """
}

workflow {
    bulk = file(params.bulk)
    PAIR(bulk, file(params.samples), file(params.cells), file(params.cell_annotation))
    BENCHMARK(PAIR.out.pairs)
    TRAIN(PAIR.out.pairs)
    PREDICT(TRAIN.out.model, params.new_samples ? file(params.new_samples) : bulk)
    runs = PAIR.out.run.mix(TRAIN.out.run, PREDICT.out.run).collect()
    REPORT(PREDICT.out.tables, TRAIN.out.model, BENCHMARK.out, runs)
}
