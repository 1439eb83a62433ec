"""Run the original Scaden 1.1.2 for benchmarks/speed.py, with the Python in which it is installed (3.8, TensorFlow 2).

python scaden_original.py simulate|train INPUT.npz OUTPUT.npz
"""

import contextlib
import io
import os
import resource
import sys
import time
from importlib.metadata import version

import numpy as np
import pandas as pd


def simulate(data):
    from scaden.simulation.bulk_simulator import BulkSimulator

    cells = pd.DataFrame(data["counts"])
    labels = pd.DataFrame({"Celltype": data["cell_types"]})
    simulator = BulkSimulator(sample_size=int(data["cells_per_sample"]), num_samples=int(data["n_samples"]))
    start = time.process_time()
    bulk, _ = simulator.create_subsample_dataset(cells, labels, sorted(set(data["cell_types"])))
    return {"seconds": time.process_time() - start, "shape": bulk.shape}


def train(data):
    """Process the data as ``scaden process`` does, train the three networks as ``scaden train`` does, and predict."""
    import tensorflow as tf
    from anndata import AnnData
    from scaden.model.architectures import architectures
    from scaden.model.functions import sample_scaling
    from scaden.model.scaden import Scaden

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    types = [f"type{k}" for k in range(data["fractions"].shape[1])]
    training = AnnData(
        sample_scaling(data["expression"], "log_min_max"), obs=pd.DataFrame(data["fractions"], columns=types)
    )
    training.uns["cell_types"] = types
    training.write("training.h5ad")
    seconds, predictions = 0.0, []
    for name, (hidden, dropout) in architectures.items():
        network = Scaden(
            name, name, num_steps=int(data["steps"]), seed=int(data["seed"]), hidden_units=hidden, do_rates=dropout
        )
        # the first steps include tracing and memory allocation
        start = time.process_time()
        network.train(input_path="training.h5ad", train_datasets=[])
        seconds += time.process_time() - start
        predictions.append(network.model.predict(sample_scaling(data["bulk"], "log_min_max"), verbose=0))
    return {"seconds": seconds, "predicted": np.mean(predictions, axis=0)}


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    command, source, target = sys.argv[1:]
    with contextlib.redirect_stdout(io.StringIO()):
        result = {"simulate": simulate, "train": train}[command](np.load(source, allow_pickle=False))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    np.savez(target, version=version("scaden"), peak=peak, **result)
