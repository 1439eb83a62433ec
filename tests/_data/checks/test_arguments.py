"""Every public callable checks every argument by the rule of its name."""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scdeconv
from scdeconv import clustering, datasets, io, metrics, models, pl, pp, tl
from scdeconv._data.checks import checked, rules_of

PARTS = (io, datasets, metrics, pp, tl, pl, models, clustering)
# results, which functions of the library make, and what authors of methods derive from or get
NOT_CALLED_BY_USERS = {
    "CellModel",
    "ClusteringModel",
    "Calibration.from_arrays",
    "Calibration",
    "Constraints",
    "Tuning",
    "Method",
    "Estimate",
    "HeldOut",
}
OF_AUTHORS = ("Estimate.", "HeldOut.", "Method.", "PairedData", "State")
METHODS_OF_AUTHORS = {"fit", "cross_fit", "signature"}
REFUSED = (TypeError, ValueError)
WRONG = (None, "x", -1, 1.5, float("nan"), True, [], Path("x"), pd.DataFrame({"a": ["b"]}), models.NNLS, object())
# dictionaries of anything, which the functions read themselves
OPEN = ("gene_names", "history", "labels", "methods", "search_space", "tune", "tx2gene", "types")


def functions_of_class(name, cls):
    if "scdeconv" in getattr(cls.__init__, "__module__", ""):
        yield name, cls.__init__
    for attribute in dir(cls):
        found = inspect.getattr_static(cls, attribute)
        function = found.__func__ if isinstance(found, (classmethod, staticmethod)) else found
        if (
            not attribute.startswith("_")
            and inspect.isfunction(function)
            and function.__module__.startswith("scdeconv")
        ):
            yield function.__qualname__, function


def public_functions():
    """Functions, constructors and methods of the public parts by name, each once."""
    found = {}
    for part in PARTS:
        for name in part.__all__:
            item = getattr(part, name)
            if inspect.isclass(item):
                found.update((function, label) for label, function in functions_of_class(name, item))
            elif callable(item):
                found[item] = f"{part.__name__.split('.')[1]}.{name}"
    return {label: function for function, label in found.items()}


def arguments_of(function):
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.name not in ("self", "cls") and p.kind != p.VAR_KEYWORD]


def is_for_users(name):
    if name in NOT_CALLED_BY_USERS or name.startswith(OF_AUTHORS):
        return False
    return "." not in name or name.split(".")[0].islower() or name.split(".")[1] not in METHODS_OF_AUTHORS


FUNCTIONS = {
    name: function for name, function in public_functions().items() if is_for_users(name) and arguments_of(function)
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def takes_self(function):
    return next(iter(inspect.signature(function).parameters)) in ("self", "cls")


def call(function, **arguments):
    """Call a function or method; ``self`` is not used before the arguments are checked."""
    return function(*[object()] * takes_self(function), **arguments)


def test_the_walk_finds_all_kinds_of_functions():
    expected = {"tl.predict", "pp.pair", "metrics.rmse", "DeconvolutionModel.predict", "SavedModel.save"}
    assert expected < set(FUNCTIONS)
    assert {"SimpleDNN", "ScDCC", "DESC.train", "NeuralModel.setup_anndata", "io.read_bulk"} < set(FUNCTIONS)
    assert len(FUNCTIONS) > 80


@each_function
def test_every_argument_has_a_rule(name):
    missing = [p.name for p in arguments_of(FUNCTIONS[name]) if p.name not in rules_of(FUNCTIONS[name])]
    assert not missing, "Decorate the function with checked() and add the argument to scdeconv._data.checks.RULES."


@each_function
def test_no_rule_accepts_any_object(name):
    for argument, rule in rules_of(FUNCTIONS[name]).items():
        for value in (object(), [object()], {"a": object()}):
            assert not rule.accepts(value) or argument in OPEN, argument


@each_function
def test_wrong_values_are_refused_by_name(name):
    function = FUNCTIONS[name]
    required = [p.name for p in arguments_of(function) if p.default is p.empty]
    for argument, rule in rules_of(function).items():
        for value in WRONG:
            if not rule.accepts(value):
                with pytest.raises(REFUSED, match=f"Expected {argument} to be .*, found .*\\.") as caught:
                    call(function, **{**dict.fromkeys(required, value), argument: value})
                assert str(caught.value).startswith("Expected ")


@each_function
def test_none_is_accepted_where_it_is_documented(name):
    rules = rules_of(FUNCTIONS[name])
    for parameter in arguments_of(FUNCTIONS[name]):
        documented = parameter.default is None or "None" in str(parameter.annotation)
        assert rules[parameter.name].accepts(None) == documented, parameter.name


@each_function
def test_defaults_follow_their_rules(name):
    rules = rules_of(FUNCTIONS[name])
    wrong = [p.name for p in arguments_of(FUNCTIONS[name]) if p.default is not p.empty]
    wrong = [p for p in wrong if not rules[p].accepts(inspect.signature(FUNCTIONS[name]).parameters[p].default)]
    assert not wrong


@each_function
def test_misspelt_keywords_are_refused(name):
    function = FUNCTIONS[name]
    if name in ("tl.train", "tl.tune", "tl.cross_validate", "tl.validate", "tl.cluster", "CellModel.check_cells"):
        pytest.skip("arguments of a method are checked with those of the method")
    wanted = arguments_of(function)[-1].name
    with pytest.raises(TypeError, match=rf"Expected arguments of .* found \['{wanted}z'\]\. Did you mean '"):
        call(function, **{f"{wanted}z": 1})


@pytest.mark.parametrize(
    ("part", "function", "misspelt", "meant"),
    [
        (tl, "train", "max_epoch", "max_epochs"),
        (tl, "train", "n_gene", "n_genes"),
        (tl, "train", "signatur", "signature"),
        (tl, "cross_validate", "allow_leakages", "allow_leakage"),
        (tl, "tune", "n_trial", "n_trials"),
    ],
)
def test_arguments_of_methods_are_proposed(pairs, part, function, misspelt, meant):
    with pytest.raises(TypeError, match=f"found \\['{misspelt}'\\]. Did you mean '{meant}'"):
        getattr(part, function)(pairs, "simplednn", **{misspelt: 1})


def test_misspelt_arguments_of_clustering_are_proposed(cohort):
    with pytest.raises(TypeError, match="Did you mean 'n_top_genes'"):
        tl.cluster(cohort[0], n_top_gene=3)
    with pytest.raises(ValueError, match="Expected method to be one of .* Did you mean 'desc'"):
        tl.cluster(cohort[0], "dec")


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_members": 0},
        {"max_epochs": 0},
        {"max_epochs": "5"},
        {"learning_rate": float("nan")},
        {"learning_rate": -1},
        {"hidden": 64},
        {"dropout": 1.0},
        {"n_genes": 1.5},
        {"n_aug": 0},
        {"n_samples": 0},
        {"loss": "mae"},
        {"train_on": "pair"},
    ],
    ids=str,
)
def test_arguments_of_methods_are_checked_first(pairs, arguments, unchanged):
    (name,) = arguments
    with unchanged(pairs), pytest.raises(REFUSED, match=f"Expected {name} to be"):
        tl.train(pairs, "simplednn", **arguments)
    with pytest.raises(REFUSED, match=f"Expected {name}"):
        tl.benchmark(pairs, {"a": {"method": "simplednn", **arguments}}, seeds=[0], cv=2)


def test_seeds_of_all_methods_are_checked(pairs):
    for method in ("nnls", "simplednn"):
        with pytest.raises(TypeError, match="Expected seed to be a whole number"):
            tl.train(pairs, method, seed="x")


@pytest.fixture(scope="module")
def nnls(cohort):
    return tl.train(pp.pair(*cohort), "nnls")


class TestObjects:
    def test_a_mudata_stands_for_its_bulk(self, pairs, nnls):
        tl.predict(pairs, nnls)
        expected = nnls.predict(pairs["bulk"])
        pd.testing.assert_frame_equal(pairs["bulk"].obsm["fractions"], expected)
        pd.testing.assert_frame_equal(nnls.predict(pairs), expected)
        pd.testing.assert_frame_equal(tl.evaluate(pairs), tl.evaluate(pairs["bulk"]))
        assert pl.fractions(pairs).get_ylabel() == "cell fraction"

    def test_exchanged_arguments_are_named(self, cohort, pairs, nnls):
        for function, arguments in (
            (tl.predict, (nnls, cohort[1])),
            (tl.expression, (nnls, cohort[1])),
            (tl.train, ("nnls", pairs)),
            (pp.hold_out, (["D1"], pairs)),
            (pp.select_genes, (50, pairs)),
            (pl.fractions, ("fractions", pairs)),
        ):
            with pytest.raises(TypeError, match="Exchange "):
                function(*arguments)

    def test_exchanged_cells_and_bulk_are_named(self, cohort):
        cells, bulk = cohort
        with pytest.raises(ValueError, match=r"found 12 cells without and \d+ bulk samples with this column. Exchange"):
            pp.pair(bulk, cells)

    @pytest.mark.parametrize(
        ("make", "advice"),
        [
            (lambda cells, bulk: (bulk.to_df(),), r"found a DataFrame of 12 × 240.*anndata\.AnnData\(table\)"),
            (lambda cells, bulk: ("bulk.h5ad",), r"found 'bulk.h5ad'.*scdeconv\.read_bulk"),
            (lambda cells, bulk: (bulk.X,), r"found an array of shape \(12, 240\)"),
        ],
    )
    def test_other_objects_than_samples_are_described(self, cohort, nnls, make, advice):
        for function in (tl.evaluate, pl.fractions, nnls.predict):
            with pytest.raises(TypeError, match=f"Expected adata to be .*{advice}"):
                function(*make(*cohort))

    @pytest.mark.parametrize("model", ["nnls", "folder/model", Path("model"), [1], models.NNLS, None])
    def test_other_objects_than_models_are_described(self, cohort, model):
        with pytest.raises(
            TypeError, match=r"Expected model to be a trained model, found .*scdeconv.load_model\(path\)"
        ):
            tl.predict(cohort[1], model)

    def test_unpaired_data_are_refused(self, cohort):
        for function in (tl.train, tl.default_method, pp.calibrate, pp.simulate, models.NNLS, models.NNLS.setup_mudata):
            with pytest.raises(
                TypeError, match=r"Expected mdata to be a MuData of scdeconv.pp.pair.*pp.pair\(cells, bulk\)"
            ):
                function(cohort[1])

    def test_text_is_no_list_of_names(self, pairs):
        with pytest.raises(
            TypeError, match=r"Expected donors to be a list of names, found 'D1'. Pass a list: \['D1'\]"
        ):
            pp.hold_out(pairs, "D1")

    @pytest.mark.parametrize("kind", [list, tuple, set, np.array, pd.Index, pd.Series])
    def test_any_kind_of_list_is_accepted(self, pairs, kind):
        donor = pairs["bulk"].obs["donor"].iloc[0]
        assert pp.hold_out(pairs, kind([donor]))[1].n_obs == 1


class TestValues:
    def test_numpy_scalars_are_plain_numbers_afterwards(self, pairs):
        pp.augment(pairs, np.int64(3), np.float32(0.5), seed=np.int8(1))
        record = pairs.uns["scdeconv"]["augment"]
        assert record == {"n_aug": 3, "aug_ratio": 0.5, "seed": 1}
        assert [type(value) for value in record.values()] == [int, float, int]

    def test_all_wrong_arguments_are_in_one_error(self, pairs):
        with pytest.raises(ValueError, match=r"Expected n_aug .*\nExpected aug_ratio .*\nExpected seed"):
            pp.augment(pairs, 0, 2, seed=-1)

    def test_a_whole_float_is_refused_with_the_number(self, pairs):
        with pytest.raises(ValueError, match=r"Expected n_aug to be a whole number of at least 1, found 3.0. Pass 3."):
            pp.augment(pairs, 3.0)

    def test_missing_and_positional_arguments_are_explained(self, pairs, nnls):
        with pytest.raises(TypeError, match=r"Expected pp.hold_out\(mdata, donors\), found missing a .*'donors'"):
            pp.hold_out(pairs)
        with pytest.raises(TypeError, match=r"Expected tl.predict\(adata, model, \*, key_added, .*too many positional"):
            tl.predict(pairs, nnls, 0.9)

    def test_trainer_arguments_that_do_not_fit_are_named(self, pairs):
        models.SimpleDNN.setup_mudata(pairs)
        model = models.SimpleDNN(pairs, n_members=1, hidden=(2,))
        with pytest.raises(
            ValueError, match=r"Expected arguments of lightning.Trainer .*'devices': 'x'.*accelerator='auto'"
        ):
            model.train(max_epochs=1, devices="x")
        model.train(max_epochs=1, log_every_n_steps=1)
        assert model.is_trained_

    def test_tables_of_other_shapes_are_refused(self, pairs):
        with pytest.raises(ValueError, match=r"samples × 4 cell types, found shape \(2, 3\)"):
            pp.calibrate(pairs).draw_bulk(np.ones((2, 3)), np.random.default_rng(0))
        with pytest.raises(ValueError, match=r"the same genes, found shapes \(5, 3\) and \(9, 4\)"):
            metrics.overlap(np.ones((5, 3)), np.ones((9, 4)))

    def test_a_file_is_no_model_directory(self, nnls, tmp_path):
        (tmp_path / "file").write_text("x")
        for path in (tmp_path / "file", tmp_path / "file" / "model"):
            with pytest.raises(FileExistsError, match="Expected a directory for the model at .*, found the file"):
                nnls.save(path, overwrite=True)

    def test_signature_and_docstring_are_kept(self):
        assert list(inspect.signature(scdeconv.tl.predict).parameters)[:2] == ["adata", "model"]
        assert tl.predict.__doc__.startswith("Predict the composition")

    def test_a_function_may_have_its_own_rule(self):
        @checked()
        def double(seed, unruled=None):
            return 2 * seed

        assert double(3, unruled=object()) == 6
        with pytest.raises(TypeError, match="Expected seed"):
            double("3")


@pytest.mark.parametrize("records", ["text", None, {"fractions": "text"}])
def test_foreign_records_in_uns_are_refused(pairs, records, unchanged):
    bulk, mdata = pairs["bulk"].copy(), pairs.copy()
    bulk.uns["scdeconv"] = mdata.uns["scdeconv"] = records
    with unchanged(bulk), pytest.raises(ValueError, match="must be a dictionary that scdeconv wrote"):
        tl.predict(bulk, tl.train(pairs, "nnls"))
    with pytest.raises(ValueError, match="must be a dictionary that scdeconv wrote"):
        tl.reference_fit(mdata)


def test_estimates_never_replace_measured_fractions(pairs):
    with pytest.raises(ValueError, match="Measured fractions are read from this key"):
        tl.predict(pairs["bulk"].copy(), tl.train(pairs, "nnls"), key_added="measured_fractions")
